"""The rows of one entity among those that were pushed, and taking them out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.offline.identity import Key
from konveyer.feature_store.sources.segments import unreadable, write_segment


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSegment:
    """A file of a pushed source with rows of the entity, listed or not."""

    source: str
    path: Path
    rows: int


def segments_with(folder: Path, columns: Sequence[ScalarColumn], key: Key) -> Iterator[HeldSegment]:
    """Files whose columns are named like the entity's join keys, and that have rows with `key`.

    Raises `SourceUnreadable` for a damaged one: nobody can tell who is in it.
    """
    for file in sorted(folder.glob("*/*.parquet")):
        try:
            count = _rows_in(file, columns, key)
        except FileNotFoundError:
            continue  # merged with others, or removed, since the folder was listed
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file.parent.name, file, error) from error
        if count:
            yield HeldSegment(source=file.parent.name, path=file, rows=count)


def _rows_in(file: Path, columns: Sequence[ScalarColumn], key: Key) -> int:
    schema = pq.read_schema(file)
    if not all(_can_hold(schema, column) for column in columns):
        return 0
    rows = pq.read_table(file, columns=list(key), partitioning=None)
    return pc.sum(_mine(rows, columns, key)).as_py() or 0


def take_out(segment: HeldSegment, columns: Sequence[ScalarColumn], key: Key) -> None:
    """Rewrite the file without these rows. The caller holds the lock of pushes."""
    rows = pq.read_table(segment.path, partitioning=None)
    write_segment(segment.path, rows.filter(pc.invert(_mine(rows, columns, key))))


def remove_drafts(folder: Path) -> None:
    """What killed pushes left unfinished; the caller holds the lock, so that none is being made."""
    for file in folder.glob("*/.*.draft"):
        file.unlink(missing_ok=True)


def _can_hold(schema: pa.Schema, column: ScalarColumn) -> bool:
    place = schema.get_field_index(column.name)
    return place >= 0 and bool(schema.field(place).type == column.dtype.arrow)


def _mine(rows: pa.Table, columns: Sequence[ScalarColumn], key: Key) -> pa.ChunkedArray:
    mine = pa.chunked_array([pa.repeat(pa.scalar(True), len(rows))])
    for column in columns:
        values = rows.column(column.name)
        if column.dtype is ColumnType.UUID:
            values = pc.utf8_lower(values)
        mine = pc.and_(mine, pc.equal(values, key[column.name]).fill_null(False))
    return mine
