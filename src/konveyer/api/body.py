"""What requests have in common."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, model_validator

from konveyer.core.texts import is_unicode

# How many of a list are answered.
Limit = Annotated[int, Query(ge=1, le=1_000_000)]


class Body(BaseModel):
    """A field that it does not know is a mistake of the caller: it might have been a reason."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_texts(cls, content: Any) -> Any:
        """JSON can hold characters that no name, path or reason has."""
        found = [*_texts(content)]
        if isinstance(content, dict):
            found += [text for value in content.values() for text in _texts(value)]
        if any("\0" in text or not is_unicode(text) for text in found):
            message = "a text in it has a NUL, or half a surrogate pair"
            raise ValueError(message)
        return content


def _texts(value: Any) -> Iterator[str]:
    """The value, or those directly in a list or an object, as far as they are texts."""
    match value:
        case dict():
            several = [*value, *value.values()]
        case list():
            several = value
        case _:
            several = [value]
    return (one for one in several if isinstance(one, str))
