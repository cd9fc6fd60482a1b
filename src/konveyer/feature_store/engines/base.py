"""Engine: runs SQL over attached tables and maps jobs over buckets."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import pyarrow as pa

from konveyer.core.errors import KonveyerError

T = TypeVar("T")


class QueryFailed(KonveyerError):
    """The engine refused a query; the message is the engine's own."""

    code = "query_failed"


class SourceFileMissing(KonveyerError):
    """The file of a source does not exist or cannot be read."""

    code = "source_file_missing"


class Engine(Protocol):
    """Thread-safe. Naive times are UTC. Errors are `QueryFailed` or `SourceFileMissing`."""

    def attach(self, name: str, path: str) -> None:
        """Make the Parquet file, folder or glob at `path` readable as table `name`."""

    def attach_query(self, name: str, sql: str) -> None:
        """Make one SELECT over attached tables readable as table `name`; it runs when read."""

    def describe(self, sql: str) -> pa.Schema:
        """The columns that `sql` would give, without running it."""

    def query(self, sql: str) -> pa.RecordBatchReader:
        """Run `sql`; rows arrive in batches, in the order that the query asks for."""

    def query_table(self, name: str, table: pa.Table, sql: str) -> pa.Table:
        """Run `sql` over `table`, which this query alone can read as table `name`."""

    def map(self, job: Callable[[int], T], buckets: Iterable[int]) -> Iterator[T]:
        """Run `job` for each bucket, several at once; results in the order of `buckets`."""

    def close(self) -> None: ...
