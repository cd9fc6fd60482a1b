"""Secrets in URLs: `${VARIABLE}` stands for the value that the environment has."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from konveyer.core.errors import KonveyerError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class VariableMissing(KonveyerError):
    """A URL takes a value from the environment, which lacks it."""

    code = "variable_missing"


def variables_of(url: str, environment: Mapping[str, str], *, setting: str) -> dict[str, str]:
    """The variables that `url` names and their values; an empty one counts as missing."""
    values = {}
    for variable in variables_in(url):
        if not environment.get(variable):
            raise VariableMissing(
                f"[{setting}] takes {variable} from the environment, where it is not set.",
                hint=f"set {variable} for commands and for 'konveyer up', then run again",
            )
        values[variable] = environment[variable]
    return values


def variables_in(url: str) -> list[str]:
    """The variables that `url` names.

    >>> variables_in("redis://:${PW}@${HOST}:6379")
    ['PW', 'HOST']
    """
    return _VARIABLE.findall(url)


def filled(url: str, values: Mapping[str, str]) -> str:
    """`url` with its variables replaced, each quoted as a part of a URL is unless it is all of it.

    >>> filled("redis://:${PW}@host", {"PW": "a/b"})
    'redis://:a%2Fb@host'
    >>> filled("${URL}", {"URL": "redis://host"})
    'redis://host'
    """
    if whole := _VARIABLE.fullmatch(url):
        return values[whole[1]]
    return _VARIABLE.sub(lambda found: quote(values[found[1]], safe=""), url)
