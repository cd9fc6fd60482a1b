"""Label frames in Parquet files: read whole when they are small, or a few rows at a time."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError, NotFound

# More labels than these stay in files.
MOST_ROWS_IN_MEMORY = 1_000_000
_BATCH_ROWS = 65_536
_FAMILIES = {
    "number": (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "instant": (pa.types.is_timestamp,),
    "date": (pa.types.is_date,),
    "time": (pa.types.is_time,),
}


class LabelFileMissing(NotFound):
    code = "label_file_missing"


class LabelsUnreadable(KonveyerError):
    code = "labels_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFiles:
    """The rows of one label frame, file after file; `ends` numbers the row after each file's last.

    Any thread or process that sees the files may read.
    """

    files: tuple[Path, ...]
    ends: tuple[int, ...]
    schema: pa.Schema

    @property
    def num_rows(self) -> int:
        return self.ends[-1]

    def between(self, start: int, end: int) -> pa.Table:
        """The rows from number `start` up to `end`, which is not included."""
        parts = [self.schema.empty_table()]
        for file, (first, last) in zip(self.files, pairwise((0, *self.ends)), strict=True):
            if first < end and start < last:
                parts.append(self._of_file(file, max(start - first, 0), min(end, last) - first))
        return pa.concat_tables(parts)

    def _of_file(self, path: Path, start: int, end: int) -> pa.Table:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
                bounds = list(pairwise(accumulate(sizes, initial=0)))
                groups = [n for n, (low, high) in enumerate(bounds) if low < end and start < high]
                skipped = bounds[groups[0]][0]
                return self._taken(file, groups, start - skipped, end - skipped)
        except (KeyError, OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error

    def _taken(self, file: pq.ParquetFile, groups: list[int], start: int, end: int) -> pa.Table:
        names = self.schema.names
        if start == 0 and end == file.metadata.num_rows:
            return file.read(names).select(names).cast(self.schema)
        batches, place = [], 0
        for batch in file.iter_batches(_BATCH_ROWS, groups, names, use_threads=False):
            low, high = max(start - place, 0), min(end - place, len(batch))
            if low < high:
                batches.append(batch.slice(low, high - low))
            place += len(batch)
            if place >= end:
                break
        return pa.Table.from_batches(batches).select(names).cast(self.schema)


def labels_at(path: Path, leave_out: Collection[str] = ()) -> pa.Table | LabelFiles:
    """The label frame in a Parquet file, or in those of a folder, in the order of their names.

    A table, unless it has more than `MOST_ROWS_IN_MEMORY` rows. Columns of the names `leave_out`
    are no part of it. All files must have the columns of the first.
    """
    found = label_files(path, leave_out)
    return found if found.num_rows > MOST_ROWS_IN_MEMORY else found.between(0, found.num_rows)


def label_files(path: Path, leave_out: Collection[str] = ()) -> LabelFiles:
    """The same, in the files however few rows there are."""
    if not path.exists():
        raise LabelFileMissing(
            f"The label file {path} does not exist.", hint="give the path of a Parquet file"
        )
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise LabelFileMissing(
            f"The folder {path} has no label files.", hint="their names end in .parquet"
        )
    ends, rows, schemas = [], 0, []
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                rows += opened.metadata.num_rows
                schemas.append(opened.schema_arrow)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file, error) from error
        ends.append(rows)
    kept = pa.schema([field for field in schemas[0] if field.name not in leave_out])
    for file, schema in zip(files, schemas, strict=True):
        _check_types(file, schema, files[0], kept)
    return LabelFiles(files=tuple(files), ends=tuple(ends), schema=kept.remove_metadata())


def _check_types(file: Path, schema: pa.Schema, first: Path, wanted: pa.Schema) -> None:
    """Arrow would make the number 7 of the text '007'. A column of nulls is one of any type."""
    for field in wanted:
        place = schema.get_field_index(field.name)
        if place < 0:
            continue  # reading it says what it lacks
        found = schema.field(place).type
        if _family(found) not in ("null", _family(field.type)):
            raise LabelsUnreadable(
                f"Column '{field.name}' is {found} in {file}, but {field.type} in {first}.",
                hint="write it with one type in all files",
            )


def _family(kind: pa.DataType) -> str:
    """Values become those of another type in the family, or casting them is an error."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for family, kinds in _FAMILIES.items():
        if any(is_one(kind) for is_one in kinds):
            return family
    return str(kind)


def _unreadable(path: Path, error: Exception) -> LabelsUnreadable:
    return LabelsUnreadable(
        f"{path} is not a readable Parquet file with the labels: {error}", hint="write it again"
    )
