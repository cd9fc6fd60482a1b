"""What a node says of itself: what it serves, and what it should serve and does not."""

from msgspec import Struct


class Serving(Struct, frozen=True, kw_only=True):
    """One version that a node serves, and on which side: `live`, `canary` or `shadow`."""

    application: str
    api_version: int
    digest: str
    side: str = "live"


class Refused(Struct, frozen=True, kw_only=True):
    """One version that a node should serve and does not, and why; an earlier one may answer.

    While `is_preparing` nothing is wrong with it: its bundle is brought, or cannot be while storage
    is away, the environment of its model is built, or its process starts. It is to be served
    `since_us`.
    """

    application: str
    api_version: int
    digest: str
    reason: str
    is_preparing: bool = False
    since_us: int = 0


class Report(Struct, frozen=True, kw_only=True):
    """What a node serves and refuses right now, and whether it is to be asked yet."""

    is_starting: bool = False
    serving: tuple[Serving, ...] = ()
    refused: tuple[Refused, ...] = ()
