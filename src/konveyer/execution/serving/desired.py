"""What an environment should serve: a document that nodes follow, written by the release conveyor.

Nodes need no database: they read this object, and the bundles that it names.
"""

import msgspec
from msgspec import Struct

from konveyer.core.storage import ObjectMissing, Storage
from konveyer.execution.serving.report import Refused


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


def desired_name(environment: str) -> str:
    """What the document is called in shared storage."""
    return f"environments/{environment}.json"


def write_desired(storage: Storage, desired: Desired) -> None:
    storage.write(desired_name(desired.environment), msgspec.json.encode(desired))


def read_desired(storage: Storage, environment: str, before: Desired | None = None) -> Desired:
    """Nothing is desired of an environment that nobody released to.

    A document is never removed: where there is none any more, because a shared folder is not
    mounted, what it said `before` holds.
    """
    try:
        content = storage.read(desired_name(environment))
    except ObjectMissing:
        return before or Desired(environment=environment)
    return msgspec.json.decode(content, type=Desired)


def is_told(storage: Storage, environment: str) -> bool:
    """Whether there is a document."""
    name = desired_name(environment)
    return any(found.name == name for found in storage.listed(name.rpartition("/")[0]))


def write_absent(storage: Storage, environment: str, absent: tuple[Refused, ...]) -> None:
    """Note beside the document of a node what it should have and could not be brought to it."""
    storage.write(_absent_name(environment), msgspec.json.encode(absent))


def read_absent(storage: Storage, environment: str) -> tuple[Refused, ...]:
    try:
        content = storage.read(_absent_name(environment))
    except ObjectMissing:
        return ()
    return msgspec.json.decode(content, type=tuple[Refused, ...])


def _absent_name(environment: str) -> str:
    return f"environments/{environment}.absent.json"
