"""Online stores that let a test do something else in the middle of a publication."""

from collections.abc import Callable, Iterable

from konveyer.feature_store.online.base import Record
from konveyer.feature_store.online.memory import MemoryOnlineStore


class InterruptedStore(MemoryOnlineStore):
    """Does something else before it writes, or deletes, next."""

    before_put: Callable[[], None] | None = None
    before_delete: Callable[[], None] | None = None

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        first, self.before_put = self.before_put, None
        if first is not None:
            first()
        super().put(space, records, even_older=even_older)

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        first, self.before_delete = self.before_delete, None
        if first is not None:
            first()
        super().delete(space, keys)
