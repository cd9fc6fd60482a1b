"""What an environment should serve: a document that nodes follow, written by the release conveyor.

Nodes need no database: they read this file, and the bundles that it names.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from konveyer.core.files import write_atomically


class DesiredVersion(Struct, frozen=True, kw_only=True):
    """One API version of one application, and the bundle that answers for it."""

    application: str
    api_version: int
    digest: str
    release: str
    since_us: int


class Desired(Struct, frozen=True, kw_only=True):
    """All that one environment serves."""

    environment: str
    versions: tuple[DesiredVersion, ...] = ()


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
