"""Whom a period scores: every entity that is known by then, or the rows of a table."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.clock import from_us
from konveyer.core.errors import KonveyerError, NotFound
from konveyer.core.schema import ColumnType
from konveyer.execution.batch.order import Given
from konveyer.feature_store.datamart.entities import AT, write_entities_at
from konveyer.feature_store.datamart.labels import lookalike
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.offline.delta import open_delta

_NUMBER = "__number"


class RowsMissing(NotFound):
    """The table to score is not there."""

    code = "rows_missing"


class RowsUnfit(KonveyerError):
    """The table to score, or a file of it, lacks a column that the model asks for, or cannot be
    read.
    """

    code = "rows_unfit"


def write_entities(
    views: tuple[PinnedView, ...],
    service: ResolvedService,
    at_us: int,
    *,
    engine: Engine,
    folder: Path,
) -> str:
    """Write every entity into files of `folder`; gives the name of the time column."""
    folder.mkdir(parents=True)
    moments_us = np.array([at_us], np.int64)
    write_entities_at(views, service.keys, moments_us, engine=engine, folder=folder)
    return AT


def write_given(given: Given, service: ResolvedService, at_us: int, *, folder: Path) -> str:
    """Write the columns that scoring needs into a file of `folder`, a few rows at a time.

    Join keys get the names that the service has for them, and each row its number, so that rows
    that are alike are scored like others. Gives the name of the time column.
    """
    folder.mkdir(parents=True)
    time = given.timestamp or AT
    wanted = {key.name: given.columns.get(key.name, key.name) for key in service.keys}
    wanted |= {field.name: field.name for field in service.request}
    if given.timestamp is not None:
        wanted[time] = time
    schemas, batches = _read(Path(given.path))
    for file, found in schemas.items():
        _check_columns(file, found, [*wanted.values()], service)
    schema = next(iter(schemas.values()))
    fields = [pa.field(name, schema.field(column).type) for name, column in wanted.items()]
    fields.append(pa.field(_NUMBER, pa.int64()))
    if given.timestamp is None:
        fields.append(pa.field(AT, ColumnType.TIMESTAMP.arrow))
    moment = pa.scalar(from_us(at_us), ColumnType.TIMESTAMP.arrow)
    with pq.ParquetWriter(folder / "rows.parquet", pa.schema(fields)) as writer:
        written = 0
        for file, batch in batches:
            columns = [_column(file, batch, name, schema) for name in wanted.values()]
            columns.append(pa.array(np.arange(written, written + len(batch))))
            written += len(batch)
            if given.timestamp is None:
                columns.append(pa.repeat(moment, len(batch)))
            writer.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)))
    return time


def _check_columns(
    file: Path, found: pa.Schema, wanted: Sequence[str], service: ResolvedService
) -> None:
    for column in wanted:
        if column not in found.names:
            raise RowsUnfit(
                f"{file} has no column '{column}'.", hint=lookalike(column, found.names, service)
            )
        if found.names.count(column) > 1:
            raise RowsUnfit(f"{file} has several columns '{column}'.", hint="rename the others")


def _column(file: Path, batch: pa.RecordBatch, name: str, first: pa.Schema) -> pa.Array:
    """The column, of the type that it has in the first file."""
    column, wanted = batch.column(name), first.field(name).type
    try:
        return column.cast(wanted)
    except pa.ArrowException as error:
        raise RowsUnfit(
            f"{file} has {column.type} in column '{name}', which files before it have as {wanted}: "
            f"{error}",
            hint="write all files with the same types",
        ) from error


def _read(path: Path) -> tuple[dict[Path, pa.Schema], Iterator[tuple[Path, pa.RecordBatch]]]:
    """The schema of each file, and the rows of all. A Delta table is as one file."""
    if (path / "_delta_log").is_dir():
        dataset = open_delta(path)
        return {path: dataset.schema}, _read_whole(path, dataset.to_batches)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise RowsMissing(
            f"There are no rows at {path}.",
            hint="give a Parquet file, a folder of them, or a Delta table",
        )
    schemas = {file: _schema_of(file) for file in files}
    return schemas, (
        pair for file in files for pair in _read_whole(file, partial(_batches_of, file))
    )


def _batches_of(file: Path) -> Iterator[pa.RecordBatch]:
    batches: Iterator[pa.RecordBatch] = pq.ParquetFile(file).iter_batches()
    return batches


def _read_whole(
    path: Path, read: Callable[[], Iterator[pa.RecordBatch]]
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """A page may be damaged, or a file gone, when its turn comes."""
    try:
        for batch in read():
            yield path, batch
    except (pa.ArrowException, OSError) as error:
        raise RowsUnfit(
            f"{path} cannot be read: {error}", hint="see that it is whole, or write it again"
        ) from error


def _schema_of(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise RowsUnfit(
            f"{file} is not a readable Parquet file: {error}", hint="write it again"
        ) from error
