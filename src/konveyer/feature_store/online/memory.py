"""Online store in this process's memory: for tests and for trying things out."""

import threading
from collections.abc import Iterable, Sequence

from konveyer.feature_store.online.base import Record, event_us_of


class MemoryOnlineStore:
    """See `OnlineStore`. Gone when the process ends."""

    is_remote = False

    def __init__(self) -> None:
        self._spaces: dict[str, dict[bytes, bytes]] = {}
        self._lock = threading.Lock()

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        with self._lock:
            rows = self._spaces.setdefault(space, {})
            for key, value in records:
                old = rows.get(key)
                if even_older or old is None or event_us_of(value) >= event_us_of(old):
                    rows[key] = value

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        return [self._spaces.get(space, {}).get(key) for space, key in places]

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._spaces.get(space, {}).pop(key, None)

    def drop(self, space: str) -> None:
        with self._lock:
            self._spaces.pop(space, None)

    def close(self) -> None:
        self._spaces = {}
