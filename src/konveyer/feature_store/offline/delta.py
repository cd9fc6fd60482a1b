"""Offline tables in Delta Lake: each write is one atomic version that readers can be pinned to."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.offline.files import BucketWriter, NewFile, OfflineWriteFailed
from konveyer.feature_store.offline.layout import BUCKET

# Small enough that a few entities are found by reading few rows, large enough to read fast.
_ROW_GROUP_ROWS = 131_072


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

    def read(
        self, bucket: int, columns: Sequence[str] | None = None, only: pa.Array | None = None
    ) -> "BucketRows":
        """One bucket's rows, without the bucket column. Its order is the caller's to check.

        `only` are the values of the first join key that are wanted: row groups that hold none of
        them are skipped, and other rows of the rest come along.
        """
        names = self.schema.names if columns is None else list(columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        parts, size = [], 0
        try:
            for path in (file.path for file in self.files_of(bucket)):
                with pq.ParquetFile(path, memory_map=True) as file:
                    groups = _groups_with(file, self.schema.names[0], only)
                    parts.append(
                        file.read_row_groups(groups, names, use_threads=False).cast(schema)
                    )
                    size += _size_of(file, groups, names)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.ref, error) from error
        return BucketRows(
            table=pa.concat_tables(parts) if parts else schema.empty_table(), size_bytes=size
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRows:
    """What was read of a bucket, and how many bytes that was on disk."""

    table: pa.Table
    size_bytes: int


def _groups_with(file: pq.ParquetFile, name: str, only: pa.Array | None) -> list[int]:
    """The row groups whose range of `name` holds a value of `only`; all when nothing tells."""
    groups = range(file.num_row_groups)
    if only is None:
        return list(groups)
    wanted = sorted(value for value in only.to_pylist() if value is not None)
    place = file.schema_arrow.get_field_index(name)
    kept = []
    for group in groups:
        statistics = file.metadata.row_group(group).column(place).statistics
        if statistics is None or not statistics.has_min_max:
            return list(groups)
        if bisect_left(wanted, statistics.min) < bisect_right(wanted, statistics.max):
            kept.append(group)
    return kept


def _size_of(file: pq.ParquetFile, groups: list[int], names: list[str]) -> int:
    places = [file.schema_arrow.get_field_index(name) for name in names]
    return sum(
        file.metadata.row_group(group).column(place).total_compressed_size
        for group in groups
        for place in places
    )


def unreadable(ref: TableRef, error: Exception) -> OfflineTableUnreadable:
    return OfflineTableUnreadable(
        f"Version {ref.table_version} of the table of '{ref.view}' cannot be read: {error}",
        hint=f"run 'konveyer etl run {ref.view}' to write a new version",
    )


class DeltaOfflineStore:
    """Tables under one folder: `<view>/<version of the definition>/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(
        self,
        view: str,
        version: str,
        schema: pa.Schema,
        write: Callable[[BucketWriter], Sequence[NewFile]],
        *,
        buckets: int,
    ) -> tuple[TableRef, int]:
        """Replace the table's content by the files of `write` in one commit; also how many rows.

        `schema` has the column `bucket`. A failure leaves the table as it was, and nothing behind.
        """
        path = self._folder / view / version
        path.mkdir(parents=True, exist_ok=True)
        writer = BucketWriter(
            view=view, folder=path, draft=uuid4().hex, schema=schema, group_rows=_ROW_GROUP_ROWS
        )
        kept: set[str] = set()
        try:
            files = write(writer)
            # From here on they may be in the log, also when the commit reports an error.
            kept = {file.path for file in files}
            _commit(path, files, Schema.from_arrow(schema))
            table_version = DeltaTable(str(path)).version()
        except (DeltaError, OSError) as error:
            raise OfflineWriteFailed(
                f"The table of '{view}' could not be written: {error}",
                hint="see that the disk has room, then run ETL again",
            ) from error
        finally:
            writer.remove_all_but(kept)
        ref = TableRef(view=view, version=version, table_version=table_version, buckets=buckets)
        return ref, sum(file.rows for file in files)

    def open(self, ref: TableRef) -> TableVersion:
        """Read the log of one version; the data is read by `TableVersion.read`."""
        path = self._folder / ref.view / ref.version
        try:
            table = DeltaTable(str(path), version=ref.table_version)
            schema = pa.schema(table.schema().to_arrow())
            actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        except (DeltaError, OSError) as error:
            raise unreadable(ref, error) from error
        files: dict[int, list[DataFile]] = {}
        for action in actions:
            file = DataFile(
                path=path / unquote(action["path"]),
                rows=action["num_records"],
                size_bytes=action["size_bytes"],
            )
            files.setdefault(int(action[f"partition.{BUCKET}"]), []).append(file)
        return TableVersion(
            ref=ref,
            schema=pa.schema([field for field in schema if field.name != BUCKET]),
            files={bucket: tuple(found) for bucket, found in files.items()},
        )


def _commit(path: Path, files: Sequence[NewFile], schema: Schema) -> None:
    actions = [
        AddAction(
            path=file.path,
            size=file.size_bytes,
            partition_values={BUCKET: str(file.bucket)},
            modification_time=now_us() // 1_000,
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in files
    ]
    if DeltaTable.is_deltatable(str(path)):
        table = DeltaTable(str(path))
        table.create_write_transaction([*actions], "overwrite", schema, [BUCKET])
    else:
        create_table_with_add_actions(str(path), schema, actions, partition_by=[BUCKET])
