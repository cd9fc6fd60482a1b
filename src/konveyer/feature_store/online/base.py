"""OnlineStore: the newest record of each entity key, for reading in microseconds."""

import struct
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

from konveyer.core.errors import KonveyerError

_EVENT = struct.Struct("<q")
EVENT_OFFSET = 8


class OnlineStoreUnavailable(KonveyerError):
    """The online store cannot be read or written."""

    code, status = "online_store_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class Record(NamedTuple):
    """`value` begins with 8 bytes of schema fingerprint and 8 of event time (see `codec`)."""

    key: bytes
    value: bytes


def event_us_of(value: bytes) -> int:
    """The event time that a record's value carries.

    >>> event_us_of(bytes(8) + struct.pack("<q", 5))
    5
    """
    event_us: int = _EVENT.unpack_from(value, EVENT_OFFSET)[0]
    return event_us


class OnlineStore(Protocol):
    """Newest record per entity key. Thread-safe. Bytes in, bytes out: `codec` owns types.

    A space is a name for one version of one view; a reader sees a whole old or a whole new record,
    also after a `put` that was interrupted. `put` keeps the record with the newer event time (the
    later one on a tie), so a replayed publication is harmless; with `even_older` it replaces
    whatever is there, for records whose newer row was taken back. `get` takes pairs of a space and
    a key, so that one call reads all views of a prediction, and answers in their order; a key never
    written gives None. `delete` leaves nothing behind, not even the event time: a replay that still
    holds the entity writes it again.

    A store that is on a network `is_remote`: an event loop must not wait for it. A backend that
    settings can name also has `from_url(url, root)`; `root` is the workspace's folder.
    """

    is_remote: bool

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None: ...

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]: ...

    def delete(self, space: str, keys: Iterable[bytes]) -> None: ...

    def drop(self, space: str) -> None: ...

    def close(self) -> None: ...
