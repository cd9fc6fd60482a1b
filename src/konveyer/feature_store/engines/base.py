"""Engine: runs SQL over attached tables and maps jobs over rows and buckets."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa

from konveyer.core.errors import KonveyerError

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset  # which loads pandas, in every worker

S = TypeVar("S")
T = TypeVar("T")


class QueryFailed(KonveyerError):
    """The engine refused a query; the message is the engine's own."""

    code = "query_failed"


def check_named_once(columns: Sequence[str]) -> None:
    """Raise where two columns of a query have one name: whoever asks for it is given either.

    SQL does not tell upper case from lower case in names.
    """
    seen: dict[str, str] = {}
    for name in columns:
        if name.lower() in seen:
            raise QueryFailed(
                f"It gives two columns '{seen[name.lower()]}'.",
                hint="name each once: leave one out with '* EXCLUDE (column)', rename it, or join "
                "with USING",
            )
        seen[name.lower()] = name


class SourceUnreadable(KonveyerError):
    """The files of a source are damaged, or changed or vanished while they were read."""

    code = "source_unreadable"


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

    Errors are `QueryFailed`, `SourceUnreadable` or `JobFailed`, and those of jobs. A job is a
    value that can be pickled, and may run more than once: in a thread here, or on other machines
    that see the same files. `answers_at_once` when a query over a small table takes milliseconds.
    """

    @property
    def answers_at_once(self) -> bool: ...

    def session(self) -> AbstractContextManager["Engine"]:
        """This engine with tables of its own, for one thread: what is attached there is seen by
        nobody else and gone at the end."""

    def attach_parquet(self, name: str, files: Sequence[str], *, below: str | None = None) -> None:
        """Make Parquet files readable as table `name`, with the columns of the first.

        Folders below `below` that are named `key=value` are columns too, when all files have the
        same keys.
        """

    def attach_dataset(self, name: str, dataset: "Dataset", staging: Path) -> None:
        """Make an Arrow dataset readable as table `name`: only what a query needs is read.

        An engine that cannot read it where it stands keeps its rows in the folder `staging`.
        """

    def attach_table(self, name: str, table: pa.Table) -> None:
        """Make `table` readable as table `name`, replacing an earlier one.

        A plain SELECT over it alone gives rows in its order.
        """

    def attach_query(self, name: str, sql: str) -> None:
        """Make one SELECT over attached tables readable as table `name`; it runs when read."""

    def describe(self, sql: str) -> pa.Schema:
        """The columns that `sql` would give, without running it. Two of one name are an error."""

    def query(self, sql: str) -> pa.Table:
        """Run `sql`, whose rows fit in memory, in the order that it asks for."""

    def map_rows(
        self,
        rows: SortedRows,
        job: Callable[[Iterator[pa.RecordBatch]], T],
        *,
        seen: Callable[[int], None] | None = None,
    ) -> list[T]:
        """Run `job` over all rows, at one place or split over several: a part is never split.

        Results are small, and in no order. `seen` is told how many rows jobs were given so far, by
        an engine that knows.
        """

    def map(self, job: Callable[[S], T], items: Iterable[S]) -> Generator[T]:
        """Run `job` for each item, several at once; results in the order of `items`.

        Only some items at a time are under way, and their results in memory. Closing it before its
        end begins no more of them, and waits for those under way.
        """

    def close(self) -> None: ...
