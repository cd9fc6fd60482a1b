"""Segments: Parquet files with the rows of pushes, written once and listed by the catalog."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.files import file_written_whole, flushed_folder, locked
from konveyer.core.schema import arrow_schema
from konveyer.feature_store.definitions.pushed import ARRIVAL
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.engines.base import SourceUnreadable
from konveyer.feature_store.sources.errors import SourceFileMissing, WrongType
from konveyer.feature_store.sources.staging import keeping


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSegment:
    """The rows of one segment that a reader wants: those that arrived in `(after_us, until_us]`.

    None means from the first, or to the last.
    """

    name: str
    after_us: int | None = None
    until_us: int | None = None

    @property
    def is_whole(self) -> bool:
        return (self.after_us, self.until_us) == (None, None)


def locked_pushes(folder: Path) -> AbstractContextManager[None]:
    """The lock of pushes below `folder`, for whoever writes segments or puts their rows online."""
    return locked(folder / ".lock")


def write_segment(file: Path, rows: pa.Table) -> None:
    """Write a segment, and flush it with its name: once this returns it survives a crash."""
    with file_written_whole(file) as draft:
        pq.write_table(rows, draft)
        with draft.open("rb+") as written:
            os.fsync(written.fileno())
    flushed_folder(file.parent)


def read_segments(source: Source, listed: Sequence[ListedSegment], folder: Path) -> pa.Table:
    """All rows that are wanted of the segments, with the columns that `source` declares."""
    schema = arrow_schema(source.declared)
    parts = [_rows_of(source, one, folder / one.name) for one in listed]
    return pa.concat_tables([schema.empty_table(), *parts])


def readable_files(
    source: Source, listed: Sequence[ListedSegment], folder: Path, staging: Path
) -> list[Path]:
    """Files with exactly the rows that are wanted and the columns that `source` declares.

    The segments themselves where that is what they hold, otherwise what is to be read of them in
    `staging`.
    """
    schema = arrow_schema(source.declared)
    files = []
    for number, one in enumerate(listed):
        file = folder / one.name
        if not one.is_whole or not _schema(source, file).equals(schema):
            file = staging / f"{source.name}-{number}.parquet"
            rows = _rows_of(source, one, folder / one.name)
            with keeping(source.name, staging):
                pq.write_table(rows, file)
        files.append(file)
    return files


def check_segments(source: Source, listed: Sequence[ListedSegment], folder: Path) -> None:
    """Raise where rows that were pushed before cannot be read with the columns of `source`."""
    for one in listed:
        _check_types(source, _schema(source, folder / one.name))


def _rows_of(source: Source, one: ListedSegment, file: Path) -> pa.Table:
    """Columns that were added since are null, columns that were removed since are left out."""
    schema = _schema(source, file)
    _check_types(source, schema)
    try:
        rows = pq.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(source.name, file, error) from error
    arrived_us = rows.column(ARRIVAL).cast(pa.int64())
    if one.after_us is not None:
        rows = rows.filter(pc.greater(arrived_us, one.after_us))
        arrived_us = rows.column(ARRIVAL).cast(pa.int64())
    if one.until_us is not None:
        rows = rows.filter(pc.less_equal(arrived_us, one.until_us))
    columns = [
        rows.column(field.name) if field.name in schema.names else pa.nulls(len(rows), field.type)
        for field in arrow_schema(source.declared)
    ]
    return pa.table(columns, schema=arrow_schema(source.declared))


def _check_types(source: Source, found: pa.Schema) -> None:
    for field in arrow_schema(source.declared):
        if field.name in found.names and found.field(field.name).type != field.type:
            raise WrongType(
                f"Source '{source.name}', column '{field.name}' is {field.type}, but it was "
                f"{found.field(field.name).type} in rows that were pushed before.",
                hint="give the column its type of before, or another name",
            )


def _schema(source: Source, file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file).remove_metadata()
    except FileNotFoundError as error:
        raise SourceFileMissing(
            f"Source '{source.name}' has lost the pushed rows in {file}.",
            hint="restore the file from a backup: the catalog lists it",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(source.name, file, error) from error


def unreadable(source: str, file: Path, error: Exception) -> SourceUnreadable:
    return SourceUnreadable(
        f"Source '{source}', file {file}: {str(error).splitlines()[0]}",
        hint="restore the file from a backup; nothing was changed",
    )
