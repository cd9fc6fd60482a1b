"""Backends are found by URL scheme: a table of scheme -> "module:attribute", imported on use."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from konveyer.core.errors import KonveyerError


class BackendNotInstalled(KonveyerError):
    """The library of a backend is not installed."""

    code = "backend_not_installed"


class UnknownScheme(KonveyerError):
    """A URL whose scheme no backend answers to."""

    code = "unknown_scheme"


def scheme_of(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]


def backend_for(url: str, table: Mapping[str, str], *, setting: str) -> Any:
    """The object that `table` names for the scheme of `url`.

    >>> backend_for("json:x", {"json": "json:loads"}, setting="demo")("1")
    1
    """
    target = table.get(scheme_of(url))
    if target is None:
        raise UnknownScheme(
            f"'{url}' in [{setting}] has a scheme that no backend answers to.",
            hint=f"use one of: {', '.join(sorted(table))}",
        )
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise BackendNotInstalled(
            f"'{url}' in [{setting}] needs the Python package '{error.name}'.",
            hint=f"pip install 'konveyer[{scheme_of(url)}]'",
        ) from error
