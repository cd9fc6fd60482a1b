"""One version of an offline table, as its readers see it: files by bucket.

Workers read it in processes that start for the job: nothing heavy is imported here.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.offline.row_groups import (
    Group,
    RowGroup,
    groups_with,
    row_groups,
    size_of,
)


class OfflineTableUnreadable(KonveyerError):
    """A table version is gone or damaged."""

    code = "offline_table_unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRef:
    """One version of one view's table; training sets are pinned to it."""

    view: str
    version: str
    table_version: int
    buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One Parquet file of a table version, with what the Delta log says of it."""

    path: Path
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableVersion:
    """One version of a table: its files by bucket, its columns. Any thread or process may read."""

    ref: TableRef
    schema: pa.Schema
    files: dict[int, tuple[DataFile, ...]]

    def files_of(self, bucket: int) -> tuple[DataFile, ...]:
        """The files of `bucket`, counted in at least as many buckets as the table has."""
        return self.files.get(bucket % self.ref.buckets, ())

    def rows_of(self, bucket: int) -> int:
        """How many rows `bucket` has, by the log."""
        return sum(file.rows for file in self.files_of(bucket))

    def row_groups(self, bucket: int, columns: Sequence[str]) -> list[RowGroup]:
        """What the files of a bucket say of these columns, group by group. Reads no data."""
        found: list[RowGroup] = []
        for number, data in enumerate(self.files_of(bucket)):
            with self._opened(data) as file:
                found += row_groups(number, file, columns)
        return found

    def read(
        self,
        bucket: int,
        columns: Sequence[str] | None = None,
        only: pa.Array | None = None,
        *,
        groups: Collection[Group] | None = None,
    ) -> "BucketRows":
        """One bucket's rows, without the bucket column. Its order is the caller's to check.

        `only` are the values of the first join key that are wanted: row groups that hold none of
        them are skipped, and other rows of the rest come along. Or `groups` are all that is read.
        """
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        key = self.schema.names[0]
        parts, size = [], 0
        for number, data in enumerate(self.files_of(bucket)):
            with self._opened(data) as file:
                own = row_groups(number, file, [] if only is None else [key])
                own = own if only is None else groups_with(own, key, only)
                chosen = [g.group[1] for g in own if groups is None or g.group in groups]
                parts.append(file.read_row_groups(chosen, names, use_threads=False).cast(schema))
                size += size_of(file, chosen, names)
        table = pa.concat_tables(parts) if parts else schema.empty_table()
        return BucketRows(table=table, size_bytes=size)

    @contextmanager
    def _opened(self, data: DataFile) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(data.path, memory_map=True) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.ref, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRows:
    """What was read of a bucket, and how many bytes that was on disk."""

    table: pa.Table
    size_bytes: int


def unreadable(ref: TableRef, error: Exception) -> OfflineTableUnreadable:
    what = str(error).partition("\n")[0]  # a trace may follow
    return OfflineTableUnreadable(
        f"Version {ref.table_version} of the table of '{ref.view}' cannot be read: {what}",
        hint=f"run 'konveyer etl run {ref.view}' to write a new version",
    )
