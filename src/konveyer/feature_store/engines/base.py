"""Engine: runs SQL over attached tables and maps jobs over buckets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import pyarrow as pa
from pyarrow.dataset import Dataset

from konveyer.core.errors import KonveyerError

T = TypeVar("T")


class QueryFailed(KonveyerError):
    """The engine refused a query; the message is the engine's own."""

    code = "query_failed"


class SourceUnreadable(KonveyerError):
    """The files of a source are damaged, or changed or vanished while they were read."""

    code = "source_unreadable"


class Engine(Protocol):
    """Thread-safe. Naive times are UTC. Errors are `QueryFailed` or `SourceUnreadable`, also those
    that come while the rows of a query are read."""

    def session(self) -> AbstractContextManager["Engine"]:
        """This engine with tables of its own, for one thread: what is attached there is seen by
        nobody else and gone at the end."""

    def attach_parquet(self, name: str, files: Sequence[str]) -> None:
        """Make Parquet files readable as table `name`, with the columns of the first."""

    def attach_dataset(self, name: str, dataset: Dataset) -> None:
        """Make an Arrow dataset readable as table `name`: only what a query needs is read."""

    def attach_query(self, name: str, sql: str) -> None:
        """Make one SELECT over attached tables readable as table `name`; it runs when read."""

    def describe(self, sql: str) -> pa.Schema:
        """The columns that `sql` would give, without running it."""

    def query(self, sql: str) -> pa.RecordBatchReader:
        """Run `sql`; rows arrive in batches, in the order that the query asks for."""

    def attach_table(self, name: str, table: pa.Table) -> None:
        """Make `table` readable as table `name`, replacing an earlier one."""

    def map(self, job: Callable[[int], T], buckets: Iterable[int]) -> Iterator[T]:
        """Run `job` for each bucket, several at once; results in the order of `buckets`."""

    def close(self) -> None: ...
