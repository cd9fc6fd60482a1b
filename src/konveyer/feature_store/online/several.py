"""Several online stores that hold the same: each environment may read one of its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.online.base import OnlineStore, Record


class SeveralOnlineStores:
    """See `OnlineStore`, for whoever writes. `stores` are named by whom they are for.

    They are written in their order, each as a store by itself; the first that fails ends it with an
    error that names it, and what earlier ones were given stays. So whatever failed is repeated
    whole. `get` answers with what any of them has.

    >>> from konveyer.feature_store.online.memory import MemoryOnlineStore
    >>> both = SeveralOnlineStores({"test": MemoryOnlineStore(), "prod": MemoryOnlineStore()})
    >>> both.put("spend.1", [Record(b"k", bytes(16))])
    >>> both.get([("spend.1", b"k"), ("spend.1", b"other")])[1] is None
    True
    """

    def __init__(self, stores: Mapping[str, OnlineStore]) -> None:
        self._stores = dict(stores)
        self.is_remote = any(store.is_remote for store in stores.values())

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        rows = list(records)
        for name, store in self._stores.items():
            with _naming(name):
                store.put(space, rows, even_older=even_older)

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        found: list[bytes | None] = [None] * len(places)
        for name, store in self._stores.items():
            with _naming(name):
                answers = store.get(places)
            found = [old or new for old, new in zip(found, answers, strict=True)]
        return found

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        gone = list(keys)
        for name, store in self._stores.items():
            with _naming(name):
                store.delete(space, gone)

    def drop(self, space: str) -> None:
        for name, store in self._stores.items():
            with _naming(name):
                store.drop(space)

    def close(self) -> None:
        for store in self._stores.values():
            store.close()


@contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except KonveyerError as error:
        error.message = f"Online store of {name}: {error.message}"
        raise
