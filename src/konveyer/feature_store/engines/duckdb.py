"""The default engine: DuckDB in this process."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from konveyer.feature_store.engines.base import QueryFailed, SortedRows, SourceFileMissing

S = TypeVar("S")
T = TypeVar("T")
_BATCH_ROWS = 100_000


class DuckDBEngine:
    """See `Engine`. One connection, used by one thread at a time; DuckDB itself uses all cores."""

    def __init__(self, url: str = "duckdb:") -> None:
        self._connection = duckdb.connect(url.partition(":")[2] or ":memory:")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._lock = threading.RLock()

    def attach(self, name: str, path: str) -> None:
        location = Path(path)
        pattern = f"{path}/**/*.parquet" if location.is_dir() else path
        if not any(mark in path for mark in "*?[") and not location.exists():
            raise SourceFileMissing(
                f"Source '{name}' reads {path}, which does not exist.",
                hint="check the source's path; relative paths start at the workspace",
            )
        quoted = pattern.replace("'", "''")
        self._run(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet('{quoted}')")  # noqa: S608

    def attach_query(self, name: str, sql: str) -> None:
        self._run(f"CREATE OR REPLACE VIEW {name} AS {sql}")

    def describe(self, sql: str) -> pa.Schema:
        return self._reader(f"SELECT * FROM ({sql}) LIMIT 0").schema  # noqa: S608

    def query(self, sql: str) -> pa.Table:
        return self._reader(sql).read_all()

    def _reader(self, sql: str) -> pa.RecordBatchReader:
        with self._lock:
            try:
                relation = self._connection.sql(sql)
                return relation.to_arrow_reader(_BATCH_ROWS)
            except duckdb.Error as error:
                raise _explained(error) from error

    def query_table(self, name: str, table: pa.Table, sql: str) -> pa.Table:
        # A cursor is a connection of its own: what it registers, no other query sees.
        with self._connection.cursor() as cursor:
            try:
                cursor.register(name, table)
                return cursor.sql(sql).to_arrow_reader(_BATCH_ROWS).read_all()
            except duckdb.Error as error:
                raise _explained(error) from error

    def _run(self, sql: str) -> None:
        with self._lock:
            try:
                self._connection.execute(sql)
            except duckdb.Error as error:
                raise _explained(error) from error

    def map_rows(self, rows: SortedRows, job: Callable[[Iterator[pa.RecordBatch]], T]) -> list[T]:
        order = ", ".join((rows.part, *rows.order))
        sql = f"SELECT * FROM ({rows.sql}) AS all_rows ORDER BY {order}"  # noqa: S608
        return [job(_batches(self._reader(sql)))]

    def map(self, job: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        # Threads suffice: NumPy, Arrow and Delta let go of the interpreter while they work.
        workers = os.cpu_count() or 1
        running: deque[Future[T]] = deque()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for item in items:
                running.append(pool.submit(job, item))
                if len(running) > workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def close(self) -> None:
        self._connection.close()


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (duckdb.Error, pa.ArrowException) as error:
            raise _explained(error) from error
        yield batch


def _explained(error: Exception) -> QueryFailed:
    first = str(error).strip().splitlines()[0]
    return QueryFailed(f"DuckDB: {first}", hint="correct the SQL of the definition")
