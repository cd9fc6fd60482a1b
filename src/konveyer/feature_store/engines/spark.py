"""Spark: SQL and jobs run by executors, on this machine or on those of a cluster."""

import logging
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

import pyarrow as pa
from py4j.protocol import Py4JError, Py4JJavaError
from pyarrow.dataset import Dataset
from pyspark import SparkConf, SparkContext, StorageLevel
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as all of Spark's documentation has it
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import ArrayType, LongType

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.engines.base import (
    JobFailed,
    QueryFailed,
    SortedRows,
    SourceUnreadable,
    check_named_once,
)
from konveyer.feature_store.engines.jobs import OnItem, OnRows, unless_large, unpacked
from konveyer.feature_store.engines.spark_files import (
    dataset_files,
    first_schema,
    is_nanoseconds,
    partition_of,
)
from konveyer.feature_store.engines.spark_sql import to_spark

S = TypeVar("S")
T = TypeVar("T")
# What Spark, its gateway, and the connection to it raise.
_ERRORS = (PySparkException, Py4JError, ConnectionError)
# So many items for each core are handed out, and their results kept by executors, at a time.
_ITEMS_PER_CORE = 4
_BATCH_ROWS = 100_000
# A cluster may start executors late; for longer than this nobody is coming.
_PATIENCE_S = 60.0

# Of Spark's names for errors, those about the files of a source.
_ABOUT_FILES = re.compile(r"\[(FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|PATH_NOT_FOUND)\b.*")
_CORRECT = "correct the SQL of the definition"

_READABLE = (
    "write the files with whole numbers to 64 bits, fractions, booleans, text and timestamps; "
    "docs/settings.md says what Spark cannot read"
)

_CONFIGURATION = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.maxResultSize": "0",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.legacy.parquet.nanosAsLong": "true",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(_BATCH_ROWS),
}


class SparkEngine:
    """See `Engine`. There is one Spark in a process: engines in one process share it.

    `url` is `spark:local[N]`, or `spark://host:port` of a standalone master; what follows a `?` is
    Spark's own configuration: `spark://host:7077?spark.executor.memory=8g&spark.driver.host=...`.
    """

    answers_at_once = False

    def __init__(self, url: str, *, session: SparkSession | None = None) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._session = session
        self._is_owner = session is None
        self._folder = tempfile.TemporaryDirectory(
            prefix="konveyer-spark-", ignore_cleanup_errors=True
        )

    @property
    def _spark(self) -> SparkSession:
        """The session; a new one where Spark stopped by itself, as when its master was lost.

        Where others own Spark it stays the old one, for its tables are in no other.
        """
        with self._lock:
            if self._session is None or (self._is_owner and _stopped(self._session)):
                self._session = _opened(self._url, Path(self._folder.name))
            return self._session

    @contextmanager
    def session(self) -> Iterator["SparkEngine"]:
        with _explaining():
            own = SparkEngine(self._url, session=self._spark.newSession())
        try:
            yield own
        finally:
            own.close()

    def attach_parquet(self, name: str, files: Sequence[str], *, below: str | None = None) -> None:
        first = first_schema(name, files)
        reader = self._spark.read.option("__globPaths__", "false")
        partition = None if below is None else partition_of(files, below)
        with _explaining(hint=_READABLE):
            schema = reader.parquet(files[0]).schema
            if partition is not None:
                reader = reader.option("basePath", partition.folder)
            frame = reader.schema(schema).parquet(*files)
            kinds = {} if partition is None else partition.types
            self._name(frame.select(*_columns(frame, first, kinds)), name)

    def attach_dataset(self, name: str, dataset: Dataset, staging: Path) -> None:
        self.attach_parquet(name, dataset_files(name, dataset, staging))

    def attach_table(self, name: str, table: pa.Table) -> None:
        with _explaining(), _without_pandas_warning():
            self._name(self._spark.createDataFrame(table), name)

    def attach_query(self, name: str, sql: str) -> None:
        with _explaining():
            self._name(self._frame(sql), name)

    def describe(self, sql: str) -> pa.Schema:
        with _explaining():
            schema = self._frame(sql).schema
        check_named_once(schema.names)
        return to_arrow_schema(schema, timezone="UTC")

    def query(self, sql: str) -> pa.Table:
        return self._run(lambda: self._frame(sql).toArrow())

    def map_rows(
        self,
        rows: SortedRows,
        job: Callable[[Iterator[pa.RecordBatch]], T],
        *,
        seen: Callable[[int], None] | None = None,  # noqa: ARG002 - executors do not tell
    ) -> list[T]:
        def run() -> list[Any]:
            frame = self._frame(rows.sql).repartitionById(rows.parts, F.col(rows.part))
            order = [_sort_key(frame, name).asc_nulls_last() for name in (rows.part, *rows.order)]
            ordered = frame.sortWithinPartitions(*order)
            with _without_pandas_warning():
                return ordered.mapInArrow(OnRows(job), "packed binary").collect()

        return [unpacked(row.packed) for row in self._run(run)]

    def map(self, job: Callable[[S], T], items: Iterable[S]) -> Generator[T]:
        context = self._spark.sparkContext
        rest = iter(items)
        while some := list(islice(rest, context.defaultParallelism * _ITEMS_PER_CORE)):
            tasks = context.parallelize(some, len(some)).map(OnItem(job))
            # Executors keep what they made, and hand over what is large one by one.
            results = tasks.persist(StorageLevel.MEMORY_AND_DISK)
            try:
                for place, small in enumerate(self._run(results.map(unless_large).collect)):
                    fetch = partial(context.runJob, results, list, [place])
                    yield unpacked(self._run(fetch)[0] if small is None else small)
            finally:
                with suppress(*_ERRORS):  # nothing is kept where Spark is gone
                    results.unpersist()

    def close(self) -> None:
        if self._is_owner and self._session is not None and not _stopped(self._session):
            self._session.stop()
        self._folder.cleanup()

    def _name(self, frame: DataFrame, name: str) -> None:
        frame.createOrReplaceTempView(_quoted(name))

    def _frame(self, sql: str) -> DataFrame:
        return self._spark.sql(to_spark(sql))

    def _run(self, action: Callable[[], T]) -> T:
        context = self._spark.sparkContext
        if str(context.master).startswith("local"):
            with _explaining():
                return action()
        with _Watch(context) as watch:
            try:
                return action()
            except _ERRORS as error:
                raise watch.verdict or _explained(error) from error


class _Watch:
    """Ends the jobs of this thread when a cluster has had no executor for too long."""

    def __init__(self, context: SparkContext) -> None:
        self.verdict: JobFailed | None = None
        self._context = context
        self._tag = f"konveyer-{uuid4().hex}"
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Watch":
        self._context.addJobTag(self._tag)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if not _is_stopped(self._context):
            self._context.removeJobTag(self._tag)

    def _watch(self) -> None:
        alone_s = 0.0
        while not self._done.wait(1.0):
            try:
                # The driver counts as one. Spark has no public name for this in Python.
                known = self._context._jsc.sc().getExecutorMemoryStatus().size()  # noqa: SLF001
                alone_s = 0.0 if known > 1 else alone_s + 1.0
                if alone_s >= _PATIENCE_S:
                    self.verdict = JobFailed(
                        f"No Spark worker of {self._context.master} has taken up the work for "
                        f"{_PATIENCE_S:.0f} s.",
                        hint="see that its workers run and have free cores, then run it again",
                    )
                    self._context.cancelJobsWithTag(self._tag)
                    return
            except (*_ERRORS, AttributeError):  # Spark has stopped; the action says why
                return


def _opened(url: str, folder: Path) -> SparkSession:
    """A session on the one gateway of this process; what its JVM says goes to a file."""
    gateway = _live_gateway()
    master, _, options = url.partition("?")
    master = master.removeprefix("spark:") if not master.startswith("spark://") else master
    configuration = SparkConf(loadDefaults=False).setMaster(master or "local[*]")
    configuration.setAppName("konveyer")
    places = {"spark.local.dir": str(folder), "spark.sql.warehouse.dir": str(folder / "warehouse")}
    configuration.setAll([*_CONFIGURATION.items(), *places.items(), *parse_qsl(options)])
    # Spark writes errors that we raise to the standard error too.
    logging.getLogger("SQLQueryContextLogger").disabled = True
    log = folder / "spark.log"
    try:
        with log.open("ab") as output, _without_pandas_warning():
            gateway = gateway or launch_gateway(  # type: ignore[no-untyped-call]
                configuration, {"stdout": output, "stderr": output}
            )
            context = SparkContext(conf=configuration, gateway=gateway)
            # Executors run this very environment, which has to stand at the same path there.
            context.pythonExec = configuration.get("spark.pyspark.python", sys.executable)
            return SparkSession(context)
    except (*_ERRORS, OSError, ValueError) as error:
        said = [line for line in log.read_text().splitlines() if line.strip()] or [""]
        raise JobFailed(
            f"Spark did not start at {master}: {_first_line(error)} {said[-1]}".rstrip(),
            hint="it needs Java 17 or newer and a master that can be reached",
        ) from error


def _live_gateway() -> Any:
    """The gateway of this process; one whose JVM was killed is forgotten, with its context."""
    gateway = getattr(SparkContext, "_gateway", None)
    if gateway is None or gateway.proc.poll() is None:
        return gateway
    gateway.proc.stdin.close()
    for name in ("_gateway", "_jvm", "_active_spark_context"):
        setattr(SparkContext, name, None)
    return None


@contextmanager
def _without_pandas_warning() -> Iterator[None]:
    """Spark warns of pandas 3, which it looks for also where only Arrow is asked of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        yield


def _stopped(session: SparkSession) -> bool:
    return _is_stopped(session.sparkContext)


def _is_stopped(context: SparkContext) -> bool:
    java = getattr(context, "_jsc", None)
    try:
        return java is None or bool(java.sc().isStopped())
    except _ERRORS:
        return True


def _columns(frame: DataFrame, schema: pa.Schema, kinds: Mapping[str, str]) -> list[Any]:
    """The columns of a frame; nanoseconds, which Spark reads as numbers, become instants, and
    those from the names of folders have the SQL types `kinds`.
    """
    columns = []
    for field in frame.schema:
        name, quoted = field.name, _quoted(field.name)
        place = schema.get_field_index(name)
        kind = schema.field(place).type if place >= 0 else None
        if kind is not None and is_nanoseconds(kind) and isinstance(field.dataType, LongType):
            micros = f"({quoted} - pmod({quoted}, 1000)) div 1000"
            columns.append(F.expr(f"CAST(timestamp_micros({micros}) AS TIMESTAMP_NTZ) AS {quoted}"))
        elif name in kinds:
            columns.append(F.expr(f"CAST({quoted} AS {kinds[name]}) AS {quoted}"))
        else:
            columns.append(F.col(quoted))
    return columns


def _sort_key(frame: DataFrame, name: str) -> SparkColumn:
    """The column; lists with their null items after all others, where DuckDB has them."""
    column = frame[_quoted(name)]
    if not isinstance(frame.schema[name].dataType, ArrayType):
        return column
    return F.transform(column, lambda item: F.struct(item.isNull(), item))


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


@contextmanager
def _explaining(hint: str = _CORRECT) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise _explained(error, hint) from error


def _explained(error: Exception, hint: str = _CORRECT) -> KonveyerError:
    """SQL states of class 42 and 0A blame the SQL (`hint` helps), of 22 and P0 the data."""
    about_files = _ABOUT_FILES.search(str(error))
    if about_files:
        return SourceUnreadable(
            f"Spark: {about_files[0]}",
            hint="restore the files of the source, then run again; nothing was changed",
        )
    state = error.getSqlState() if isinstance(error, PySparkException) else None
    if (state or "")[:2] in ("0A", "22", "42", "P0"):
        return QueryFailed(f"Spark: {_first_line(error)}", hint=hint)
    return JobFailed(
        f"Spark: {_first_line(error)}",
        hint="nothing was changed: see that Spark's workers run, then run it again",
    )


def _first_line(error: Exception) -> str:
    """What an error says, without the stack of Java; of Python on an executor, its last line."""
    text = str(error)
    if isinstance(error, Py4JJavaError):
        text = str(error.java_exception.toString())
    lines = [line for line in text.strip().splitlines() if line.strip()] or [type(error).__name__]
    if any(line.startswith("Traceback") for line in lines):
        python = [line for line in lines if not line.startswith((" ", "\t"))]
        return python[-1]
    return lines[0]
