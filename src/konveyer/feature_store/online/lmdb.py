"""Online store in LMDB: a memory-mapped file that many processes read while one writes."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from konveyer.core.plugins import path_of
from konveyer.feature_store.online.base import OnlineStoreUnavailable, Record, event_us_of

_FIRST_MAP_BYTES = 64 * 2**20
_MOST_READERS = 1024
_PREFIX_BYTES = 16
_LONGEST_KEY = 511 - _PREFIX_BYTES


class LmdbOnlineStore:
    """See `OnlineStore`. One transaction for each `put`: a killed writer leaves the old records.

    The map doubles when it is full, and readers follow. What a killed reader held is given free by
    the next write. A key longer than LMDB allows is stored under its digest.
    """

    is_remote = False

    @classmethod
    def from_url(cls, url: str, root: Path) -> "LmdbOnlineStore":
        return cls(path_of(url, root))

    def __init__(self, folder: Path) -> None:
        try:
            self._opened: _Environment | None = _opened(folder)
        except (lmdb.Error, OSError) as error:
            raise OnlineStoreUnavailable(
                f"The online store in {folder} cannot be opened: {error}.",
                hint="check that the folder is on a local disk and may be written",
            ) from error

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        rows, prefix = list(records), _prefix(space)

        def write(transaction: lmdb.Transaction) -> None:
            for key, value in rows:
                place = _place(prefix, key)
                old = None if even_older else transaction.get(place)
                if old is None or event_us_of(value) >= event_us_of(bytes(old)):
                    transaction.put(place, value)

        self._write(write)

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        keys = [
            _prefix(space) + (key if len(key) <= _LONGEST_KEY else _shortened(key))
            for space, key in places
        ]
        while True:
            try:
                return self._read(keys)
            except lmdb.MapResizedError:
                # Another process doubled the map: take its size.
                with self._environment.write_lock:
                    self._environment.resize(0)
            except lmdb.Error as error:
                message = f"The online store cannot be read: {error}."
                raise OnlineStoreUnavailable(message) from error

    def _read(self, keys: list[bytes]) -> list[bytes | None]:
        environment = self._environment
        with environment.map_lock, environment.env.begin() as transaction:
            return list(map(transaction.get, keys))

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        prefix = _prefix(space)
        places = [_place(prefix, key) for key in keys]

        def write(transaction: lmdb.Transaction) -> None:
            for place in places:
                transaction.delete(place)

        self._write(write)

    def drop(self, space: str) -> None:
        prefix = _prefix(space)

        def write(transaction: lmdb.Transaction) -> None:
            cursor = transaction.cursor()
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()).startswith(prefix):
                found = cursor.delete()

        self._write(write)

    def _write(self, work: Callable[[lmdb.Transaction], None]) -> None:
        with self._environment.write_lock:
            while True:
                try:
                    # A reader that was killed would keep the pages of its moment from being used
                    # again for ever, and the file would grow with every publication.
                    self._environment.env.reader_check()
                    with self._environment.env.begin(write=True) as transaction:
                        work(transaction)
                except lmdb.MapFullError:
                    self._environment.resize(self._environment.env.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    self._environment.resize(0)
                except lmdb.Error as error:
                    raise OnlineStoreUnavailable(
                        f"The online store cannot be written: {error}.",
                        hint="see that the disk has room; nothing of this batch was written",
                    ) from error
                else:
                    return

    def close(self) -> None:
        self._opened = None

    @property
    def _environment(self) -> "_Environment":
        if self._opened is None:
            raise OnlineStoreUnavailable("The online store is closed.", hint="open it again")
        return self._opened


class _Environment:
    """An open folder, for all stores of this process that read it; it closes after the last one.

    The map moves when its size changes, which no transaction of this process survives: reads hold
    `map_lock`, and whoever changes the size holds `write_lock` first.
    """

    def __init__(self, folder: Path) -> None:
        self.write_lock, self.map_lock = threading.Lock(), threading.Lock()
        self.env = lmdb.open(
            str(folder), map_size=_FIRST_MAP_BYTES, max_readers=_MOST_READERS, metasync=False
        )
        self.env.reader_check()  # the places of readers that were killed are for new ones

    def resize(self, size_bytes: int) -> None:
        """To so many bytes, or to what another process made of it when 0."""
        with self.map_lock:
            self.env.set_mapsize(size_bytes)

    def __del__(self) -> None:
        if "env" in self.__dict__:
            self.env.close()


# LMDB itself keeps track of what a process has open, and forbids to open a folder twice.
_OPEN: WeakValueDictionary[Path, _Environment] = WeakValueDictionary()
_OPENING = threading.Lock()


def _opened(folder: Path) -> _Environment:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    with _OPENING:
        environment = _OPEN.get(place)
        if environment is None:
            environment = _OPEN[place] = _Environment(place)
        return environment


@lru_cache
def _prefix(space: str) -> bytes:
    return hashlib.blake2b(space.encode(), digest_size=_PREFIX_BYTES).digest()


def _place(prefix: bytes, key: bytes) -> bytes:
    return prefix + (key if len(key) <= _LONGEST_KEY else _shortened(key))


def _shortened(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=32).digest()
