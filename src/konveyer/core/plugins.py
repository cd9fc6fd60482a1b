"""Backends are found by URL scheme: a table of scheme -> "module:attribute", imported on use."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from konveyer.core.errors import KonveyerError


class UnknownScheme(KonveyerError):
    """A URL whose scheme no backend answers to."""

    code = "unknown_scheme"


class BackendNotInstalled(KonveyerError):
    """A backend whose driver is an extra that this environment lacks."""

    code = "backend_not_installed"


def scheme_of(url: str) -> str:
    return url.partition(":")[0].partition("+")[0]


def path_of(url: str, root: Path) -> Path:
    """The folder or file of a local URL such as `delta:offline`, taken from `root`."""
    scheme, _, path = url.partition(":")
    if "://" in path:
        raise UnknownScheme(
            f"'{scheme}:' takes a path of this machine, and no other URL.",
            hint=f"write a folder or file, such as {scheme}:place; a bucket can be mounted there",
        )
    return root / path


def backend_for(url: str, table: Mapping[str, str], *, setting: str) -> Any:
    """The object that `table` names for the scheme of `url`. Errors show no more of the URL than
    its scheme, for it may hold a password.

    >>> backend_for("json:x", {"json": "json:loads"}, setting="demo")("1")
    1
    """
    scheme = scheme_of(url)
    target = table.get(scheme)
    if target is None:
        raise UnknownScheme(
            f"[{setting}] url begins with '{scheme}:', and no backend answers to that.",
            hint=f"use one of: {', '.join(sorted(table))}",
        )
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("konveyer"):
            raise
        raise BackendNotInstalled(
            f"'{scheme}:' in [{setting}] needs the package '{error.name}', which is not installed.",
            hint="install the extra that docs/settings.md names for it",
        ) from error
