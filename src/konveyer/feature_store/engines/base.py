"""Engine: runs SQL over attached tables and maps jobs over buckets."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import pyarrow as pa

from konveyer.core.errors import KonveyerError

S = TypeVar("S")
T = TypeVar("T")


class QueryFailed(KonveyerError):
    """The engine refused a query; the message is the engine's own."""

    code = "query_failed"


class SourceFileMissing(KonveyerError):
    """The file of a source does not exist or cannot be read."""

    code = "source_file_missing"


class JobFailed(KonveyerError):
    """The engine could not bring a job to its end, through no fault of its SQL or its data."""

    code = "engine_job_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedRows:
    """The rows of one SELECT, to be had sorted by `part` and then by `order`, nulls last.

    `part` is a whole number (32 bits) from 0 to less than `parts`.
    """

    sql: str
    part: str
    parts: int
    order: tuple[str, ...]


class Engine(Protocol):
    """Thread-safe. SQL is of DuckDB's dialect. Naive times are UTC.

    Errors are `QueryFailed`, `SourceFileMissing` or `JobFailed`, and those of jobs. A job is a
    value that can be pickled, and may run more than once: in a thread here, or on other machines
    that see the same files.
    """

    def attach(self, name: str, path: str) -> None:
        """Make the Parquet file, folder or glob at `path` readable as table `name`."""

    def attach_query(self, name: str, sql: str) -> None:
        """Make one SELECT over attached tables readable as table `name`; it runs when read."""

    def describe(self, sql: str) -> pa.Schema:
        """The columns that `sql` would give, without running it."""

    def query(self, sql: str) -> pa.Table:
        """Run `sql`, which gives a few rows."""

    def query_table(self, name: str, table: pa.Table, sql: str) -> pa.Table:
        """Run `sql` over `table`, which this query alone can read as table `name`.

        `sql` is a plain SELECT, whose rows come in the order of those of `table`.
        """

    def map_rows(self, rows: SortedRows, job: Callable[[Iterator[pa.RecordBatch]], T]) -> list[T]:
        """Run `job` over all rows, at one place or split over several: a part is never split.

        Results are small, and in no order.
        """

    def map(self, job: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """Run `job` for each item, several at once; results in the order of `items`.

        Only some items at a time are under way, and their results in memory.
        """

    def close(self) -> None: ...
