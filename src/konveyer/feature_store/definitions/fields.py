"""Each field of a definition holds a value of the type that it declares."""

import reprlib
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from konveyer.feature_store.definitions.errors import BadDefinition


def check_fields(kind: str, definition: Any) -> None:
    """Makes tuples of lists; anything else that is of another type is refused.

    To be called first in `__post_init__`. Which texts a `Literal` allows is left to the definition,
    whose words for it are better.
    """
    name = getattr(definition, "name", None)
    where = f"{kind} '{name}'" if name and isinstance(name, str) else kind
    for field, declared in _types(definition.__class__).items():
        value = getattr(definition, field)
        try:
            object.__setattr__(definition, field, msgspec.convert(value, declared))
        except msgspec.ValidationError as error:
            raise BadDefinition(
                f"{where} has {field}={reprlib.repr(value)}.",
                hint=f"give it {_in_words(declared)}{_example(value, declared)}",
            ) from error


@cache
def _types(definition: type) -> dict[str, Any]:
    declared = get_type_hints(definition)
    return {
        name: str if get_origin(type_) is Literal else type_ for name, type_ in declared.items()
    }


def _example(value: Any, declared: Any) -> str:
    """What a definition is meant by where its name belongs."""
    name = getattr(value, "name", None)
    return f": {name!r}" if isinstance(name, str) and _in_words(declared).startswith("text") else ""


def _in_words(declared: Any) -> str:
    """The type of a field, as people write values of it.

    >>> _in_words(tuple[str, ...]), _in_words(float | None)
    ('a tuple of text', 'a number or None')
    """
    words = {str: "text", float: "a number", bool: "True or False", NoneType: "None"}
    if declared in words:
        return words[declared]
    if get_origin(declared) is tuple:
        return f"a tuple of {_in_words(get_args(declared)[0])}"
    if get_origin(declared) is dict:
        return "a dict of texts"
    if get_args(declared):
        return " or ".join(_in_words(one) for one in get_args(declared))
    return str(declared.__name__)
