"""What an environment should serve: a document that nodes follow, written by the release conveyor.

Nodes need no database: they read this file, and the bundles that it names.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from konveyer.core.files import write_atomically


class Share(Struct, frozen=True, kw_only=True):
    """A release beside the live one, and how many of a thousand requests it gets."""

    digest: str
    release: str
    per_mille: int


class DesiredVersion(Struct, frozen=True, kw_only=True):
    """One API version of one application, and the bundle that answers for it.

    The `canary` answers for its share instead of the bundle; which requests these are follows from
    their join keys. The `shadows` see copies of their share, and nobody gets their answers.
    """

    application: str
    api_version: int
    digest: str
    release: str
    since_us: int
    canary: Share | None = None
    shadows: tuple[Share, ...] = ()


class ApiKey(Struct, frozen=True, kw_only=True):
    """Who may call what. `digest` is the SHA-256 of the key, in hexadecimal.

    `applications` are names; an empty tuple is every application. `rate_per_s` None is no limit.
    """

    digest: str
    name: str
    applications: tuple[str, ...] = ()
    rate_per_s: float | None = None
    expires_us: int | None = None


class Desired(Struct, frozen=True, kw_only=True):
    """All that one environment serves, and the keys of those who may call it."""

    environment: str
    versions: tuple[DesiredVersion, ...] = ()
    keys: tuple[ApiKey, ...] = ()


def desired_path(state: Path, environment: str) -> Path:
    return state / "environments" / f"{environment}.json"


def write_desired(state: Path, desired: Desired) -> None:
    write_atomically(desired_path(state, desired.environment), msgspec.json.encode(desired))


def read_desired(state: Path, environment: str) -> Desired:
    """Nothing is desired of an environment that nobody released to."""
    path = desired_path(state, environment)
    if not path.is_file():
        return Desired(environment=environment)
    return msgspec.json.decode(path.read_bytes(), type=Desired)
