"""The default engine: DuckDB in this process."""

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

import duckdb
import pyarrow as pa

from konveyer.core.errors import KonveyerError, explained, is_of_full_disk
from konveyer.feature_store.engines.base import (
    JobFailed,
    QueryFailed,
    SortedRows,
    SourceUnreadable,
    check_named_once,
)

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset  # which loads pandas: every command would wait for it

S = TypeVar("S")
T = TypeVar("T")
_BATCH_ROWS = 100_000
_PARALLEL_ROWS = 16_384
_INTERRUPTED = "Query interrupted"
# DuckDB's messages about files and streams; others that begin with their kind are about the query,
# and those without a kind come from its reader of Parquet.
_ABOUT_DATA = re.compile(
    r"IO Error|Invalid Input Error: .*(file|parquet|stream)"
    r"|Parquet file is|Out of buffer|Payload value .*corrupted"
    r"|(?![a-z ]+ error:)",
    re.IGNORECASE,
)
# What messages quote of the SQL or of its values, which may speak of files too.
_QUOTED = re.compile(r'".*"| in expression .*')


class BadConfiguration(KonveyerError):
    """The setting `[engine] url` asks DuckDB for what it does not know."""

    code = "bad_engine"


class DuckDBEngine:
    """See `Engine`. One connection, used by one thread at a time; DuckDB itself uses all cores.

    After the `?` of the URL stands any configuration of DuckDB, as in a URL. What does not fit into
    its `memory_limit` (half of the machine's memory, unless it says otherwise) is sorted on disk.
    """

    answers_at_once = True

    def __init__(
        self, url: str = "duckdb:", *, connection: duckdb.DuckDBPyConnection | None = None
    ) -> None:
        self._url = url
        self._connection = connection or _connected(url)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._lock = threading.RLock()

    @contextmanager
    def session(self) -> Iterator["DuckDBEngine"]:
        own = DuckDBEngine(self._url, connection=self._cursor())
        try:
            yield own
        finally:
            own.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            cursor = self._connection.cursor()
            try:
                cursor.execute("SELECT 1")
            except duckdb.FatalException:
                # A defect that a damaged file brings out ends a database for good: take a new one.
                self._connection = _connected(self._url)
                cursor = self._connection.cursor()
                cursor.execute("SET TimeZone = 'UTC'")
            return cursor

    def attach_parquet(self, name: str, files: Sequence[str], *, below: str | None = None) -> None:
        listed = ", ".join(f"'{_escaped(file)}'" for file in files)
        # Left to DuckDB, which looks whether all files have the same keys.
        option = ", hive_partitioning = false" if below is None else ""
        rows = f"FROM read_parquet([{listed}]{option})"
        found = self.describe(f"SELECT * {rows}")
        above = {part.partition("=")[0].lower() for part in Path(below or "").parts if "=" in part}
        columns = "*"
        if others := [_quoted(column) for column in found.names if column.lower() in above]:
            columns += f" EXCLUDE ({', '.join(others)})"
        if micros := [_micros(field) for field in found if _is_nanoseconds(field)]:
            columns += f" REPLACE ({', '.join(micros)})"
        self.attach_query(name, f"SELECT {columns} {rows}")

    def attach_dataset(self, name: str, dataset: "Dataset", staging: Path) -> None:  # noqa: ARG002
        self._register(name, dataset)

    def attach_table(self, name: str, table: pa.Table) -> None:
        # DuckDB reads batches in parallel, each in one thread.
        self._register(name, pa.Table.from_batches(table.to_batches(_PARALLEL_ROWS), table.schema))

    def attach_query(self, name: str, sql: str) -> None:
        # Temporary: seen by this connection alone.
        self._run(f'CREATE OR REPLACE TEMP VIEW "{name}" AS {sql}')

    def describe(self, sql: str) -> pa.Schema:
        with self._lock, _explaining():
            names = self._connection.sql(sql).columns
        check_named_once(names)  # a query around it would give the second one another name
        return self._reader(f"SELECT * FROM ({sql}) LIMIT 0").schema  # noqa: S608

    def query(self, sql: str) -> pa.Table:
        return self._reader(sql).read_all()

    def _reader(self, sql: str) -> pa.RecordBatchReader:
        with self._lock, _explaining():
            reader = self._connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        return pa.RecordBatchReader.from_batches(reader.schema, _explained_rows(reader))

    def _register(self, name: str, rows: Any) -> None:
        with self._lock:
            self._connection.register(name, rows)

    def _run(self, sql: str) -> None:
        with self._lock, _explaining():
            self._connection.execute(sql)

    def map_rows(
        self,
        rows: SortedRows,
        job: Callable[[Iterator[pa.RecordBatch]], T],
        *,
        seen: Callable[[int], None] | None = None,
    ) -> list[T]:
        order = ", ".join(f'"{name}"' for name in (rows.part, *rows.order))
        sql = f"SELECT * FROM ({rows.sql}) AS all_rows ORDER BY {order}"  # noqa: S608
        batches = iter(self._reader(sql))
        return [job(batches if seen is None else _told(batches, seen))]

    def map(self, job: Callable[[S], T], items: Iterable[S]) -> Generator[T]:
        # Threads suffice: NumPy, Arrow and Delta let go of the interpreter while they work, and
        # processes were no faster, with twice the memory (docs/decisions/0022).
        workers = os.cpu_count() or 1
        running: deque[Future[T]] = deque()
        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            for item in items:
                running.append(pool.submit(job, item))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        self._connection.close()


def _connected(url: str) -> duckdb.DuckDBPyConnection:
    database, _, options = url.partition(":")[2].partition("?")
    # DuckDB's own place for what it moves out of memory is the current folder. It makes the folder
    # when it needs it, and removes it in the end.
    spilled = Path(gettempdir()) / f"konveyer-duckdb-{uuid4().hex}"
    # Otherwise DuckDB fetches extensions over the network, and a definition works where it can.
    defaults = {
        "memory_limit": "50%",
        "temp_directory": str(spilled),
        "autoload_known_extensions": "false",
    }
    try:
        return duckdb.connect(
            database or ":memory:", config={**defaults, **dict(parse_qsl(options))}
        )
    except duckdb.Error as error:
        raise BadConfiguration(
            f"DuckDB refuses the configuration '{options}': {error}",
            hint="correct the setting [engine] url",
        ) from error


def _told(
    batches: Iterator[pa.RecordBatch], seen: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        rows += len(batch)
        seen(rows)
        yield batch


def _explained_rows(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    with _explaining():
        yield from reader


@contextmanager
def _explaining() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, OSError, pa.ArrowInvalid) as error:  # Arrow makes OSError of DuckDB's
        raise _explained(error) from error
    except RuntimeError as error:
        # What DuckDB makes of Ctrl-C; otherwise of names that are no text.
        if _INTERRUPTED in str(error):
            raise KeyboardInterrupt from error
        raise _explained(error) from error


def _explained(error: Exception) -> KonveyerError:
    if is_of_full_disk(error):
        return explained(error)
    first = str(error).strip().splitlines()[0]
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return JobFailed(
            f"DuckDB: {first}",
            hint="run again; if it happens again, a file of the source may be damaged",
        )
    if _ABOUT_DATA.match(_QUOTED.sub("", first)):
        return SourceUnreadable(
            f"DuckDB: {first}",
            hint="restore the files of the source, then run again; nothing was changed",
        )
    return QueryFailed(f"DuckDB: {first}", hint="correct the SQL of the definition")


def _is_nanoseconds(field: pa.Field) -> bool:
    return bool(pa.types.is_timestamp(field.type)) and field.type.unit == "ns"


def _micros(field: pa.Field) -> str:
    """The last whole microsecond, as Arrow and Spark have it; DuckDB would round to the nearest."""
    name = _quoted(field.name)
    make = "make_timestamp" if field.type.tz is None else "make_timestamptz"
    nanos = f"epoch_ns({name})"
    return f"{make}(({nanos} - ({nanos} % 1000 + 1000) % 1000) // 1000) AS {name}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(file: str) -> str:
    return file.replace("'", "''")
