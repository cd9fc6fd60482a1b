"""Offline tables in Delta Lake: each write is one atomic version that readers can be pinned to."""

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from konveyer.core.clock import now_us
from konveyer.feature_store.offline.bucket_writer import BucketWriter, NewFile, not_written
from konveyer.feature_store.offline.files import (
    StoredFile,
    check_inside,
    files_under,
    remove_folder,
)
from konveyer.feature_store.offline.identity import Key, rewrite_without
from konveyer.feature_store.offline.layout import BUCKET
from konveyer.feature_store.offline.table_version import (
    DataFile,
    OfflineTableUnreadable,
    TableRef,
    TableVersion,
    unreadable,
)

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset  # which loads pandas: every command would wait for it

# Small enough that a few entities are found by reading few rows, large enough to read fast.
_ROW_GROUP_ROWS = 131_072
# Nothing reads the ranges of values that Delta would keep in its log, and a log is never removed:
# without them it holds no value of anybody.
_TABLE = {"delta.dataSkippingNumIndexedCols": "0"}
# By default Delta forgets versions that are a month old, also those that a manifest is pinned to.
_KEEP_LOG = PostCommitHookProperties(cleanup_expired_logs=False)
_MARK = "konveyer.write"
_COMMITS_SEARCHED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTable:
    """A table as it lies on disk: its newest version (None without a log) and all of its files."""

    view: str
    version: str
    newest: int | None
    files: tuple[StoredFile, ...]


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
        files, table_version = self._committed(view, version, schema, write, None)
        ref = TableRef(view=view, version=version, table_version=table_version, buckets=buckets)
        return ref, sum(file.rows for file in files)

    def write_bucket(self, ref: TableRef, bucket: int, rows: pa.Table) -> TableRef:
        """A new version: that of `ref` with `rows` for the content of `bucket`, in their order.

        The files of the other buckets are the same files. `rows` are without the bucket column.
        """
        path = self.folder_of(ref.view, ref.version)
        numbers = pa.array([bucket] * len(rows), pa.int32())
        whole = rows.add_column(0, BUCKET, numbers)
        try:
            table = DeltaTable(str(path))
            if table.version() != ref.table_version:
                table.restore(ref.table_version, post_commithook_properties=_KEEP_LOG)
        except (DeltaError, OSError) as error:
            raise not_written(ref.view, error) from error

        def write(writer: BucketWriter) -> Sequence[NewFile]:
            return writer(iter(whole.to_batches()))

        _, table_version = self._committed(ref.view, ref.version, whole.schema, write, bucket)
        return replace(ref, table_version=table_version)

    def _committed(
        self,
        view: str,
        version: str,
        schema: pa.Schema,
        write: Callable[[BucketWriter], Sequence[NewFile]],
        bucket: int | None,
    ) -> tuple[Sequence[NewFile], int]:
        """What `write` gives takes the place of the table's content, or of one bucket's."""
        path = self.folder_of(view, version)
        path.mkdir(parents=True, exist_ok=True)
        writer = BucketWriter(
            view=view,
            folder=path,
            draft=secrets.token_hex(16),
            schema=schema,
            group_rows=_ROW_GROUP_ROWS,
        )
        kept: set[str] = set()
        mark = secrets.token_hex(8)
        try:
            files = write(writer)
            # From here on they may be in the log, also when the commit reports an error.
            kept = {file.path for file in files}
            return files, _commit(path, files, Schema.from_arrow(schema), bucket, mark)
        except (DeltaError, OSError) as error:
            with suppress(DeltaError, OSError):
                # On a full disk they would take the room that the next attempt needs.
                if _committed_as(path, mark) is None:
                    kept = set()
            raise not_written(view, error) from error
        finally:
            writer.remove_all_but(kept)

    def rewrite_file(self, view: str, version: str, path: Path, key: Key) -> None:
        """Take an entity's rows out of one file, in every table version that has the file.

        The log goes on saying how large the file was, so that afterwards those versions are
        readable by `TableVersion` alone. Not for a version that is to be restored.
        """
        check_inside(self.folder_of(view, version), path)
        rewrite_without(path, key, row_group_size=_ROW_GROUP_ROWS)

    def open(self, ref: TableRef) -> TableVersion:
        """Read the log of one version; the data is read by `TableVersion.read`."""
        path = self.folder_of(ref.view, ref.version)
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

    def stored(self) -> list[StoredTable]:
        """Every table under the folder, also what is left of a first write that was killed."""
        return [
            self._stored(folder) for folder in sorted(self._folder.glob("*/*")) if folder.is_dir()
        ]

    def _stored(self, folder: Path) -> StoredTable:
        files = files_under(folder)
        try:
            newest = DeltaTable(str(folder)).version()
        except TableNotFoundError:
            newest = None
        return StoredTable(
            view=folder.parent.name, version=folder.name, newest=newest, files=tuple(files)
        )

    def unneeded(
        self, table: StoredTable, keep: Iterable[int], *, abandoned_us: int
    ) -> tuple[StoredFile, ...]:
        """The files of `table` that no version in `keep`, nor its newest, has.

        A file that no version names may be one of a writer under way: it counts when it was last
        written before `abandoned_us`. Raises when a version in `keep` cannot be read.
        """
        path = self.folder_of(table.view, table.version)
        needed: set[Path] = set()
        replaced: set[Path] = set()
        if table.newest is not None:
            kept = sorted({*keep, table.newest})
            for version in kept:
                needed |= self._paths(table, version)
            log = DeltaTable(str(path), version=table.newest)
            names = log.vacuum(
                0, dry_run=True, enforce_retention_duration=False, keep_versions=kept
            )
            replaced = {path / unquote(name) for name in names}
        return tuple(
            file
            for file in table.files
            if file.path not in needed and (file.path in replaced or file.written_us < abandoned_us)
        )

    def _paths(self, table: StoredTable, version: int) -> set[Path]:
        ref = TableRef(view=table.view, version=table.version, table_version=version, buckets=1)
        return {file.path for files in self.open(ref).files.values() for file in files}

    def drop(self, view: str, version: str) -> None:
        """Remove a table whole. Harmless when it is gone."""
        remove_folder(self._folder, self.folder_of(view, version))

    def folder_of(self, view: str, version: str) -> Path:
        return self._folder / view / version


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """A Parquet file below a table's folder, without the column that names its part."""

    path: str
    rows: int
    size_bytes: int


def replace_part(
    folder: Path, schema: pa.Schema, column: str, part: str, files: Sequence[PartFile]
) -> int:
    """Let `files` be all rows of the Delta table in `folder` whose text `column` is `part`.

    `schema` has the column, last; a table that is not there is made. One commit; the table version.
    """
    mark = secrets.token_hex(8)
    properties = CommitProperties(custom_metadata={_MARK: mark})
    actions = [
        AddAction(
            path=file.path,
            size=file.size_bytes,
            partition_values={column: part},
            modification_time=now_us() // 1_000,
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in files
    ]
    delta_schema = Schema.from_arrow(schema)
    if not DeltaTable.is_deltatable(str(folder)):
        create_table_with_add_actions(
            str(folder),
            delta_schema,
            actions,
            partition_by=[column],
            configuration=_TABLE,
            commit_properties=properties,
        )
        return 0
    DeltaTable(str(folder)).create_write_transaction(
        [*actions],
        "overwrite",
        delta_schema,
        [column],
        [(column, "=", part)],
        commit_properties=properties,
    )
    commits = DeltaTable(str(folder)).history(_COMMITS_SEARCHED)
    version: int = next(one["version"] for one in commits if one.get(_MARK) == mark)
    return version


def schema_at(folder: Path) -> pa.Schema | None:
    """The columns of the Delta table in `folder`; None when there is none."""
    if not DeltaTable.is_deltatable(str(folder)):
        return None
    return pa.schema(DeltaTable(str(folder)).schema().to_arrow())


def remove_replaced(folder: Path, *, after_hours: int) -> None:
    """Remove files that no reader of the newest version needs, so long after they were replaced."""
    DeltaTable(str(folder)).vacuum(after_hours, dry_run=False, full=True)


def _commit(
    path: Path, files: Sequence[NewFile], schema: Schema, bucket: int | None, mark: str
) -> int:
    """Commit `files`; the number of the commit, whoever else commits at the same time."""
    properties = CommitProperties(custom_metadata={_MARK: mark})
    actions = [_added(file) for file in files]
    if DeltaTable.is_deltatable(str(path)):
        DeltaTable(str(path)).create_write_transaction(
            [*actions],
            "overwrite",
            schema,
            [BUCKET],
            None if bucket is None else [(BUCKET, "=", str(bucket))],
            commit_properties=properties,
            post_commithook_properties=_KEEP_LOG,
        )
    else:
        create_table_with_add_actions(
            str(path),
            schema,
            actions,
            partition_by=[BUCKET],
            configuration=_TABLE,
            commit_properties=properties,
            post_commithook_properties=_KEEP_LOG,
        )
    version = _committed_as(path, mark)
    assert version is not None  # noqa: S101 - it was committed
    return version


def _committed_as(path: Path, mark: str) -> int | None:
    """The number of the commit with this mark; None when there is none."""
    if not DeltaTable.is_deltatable(str(path)):
        return None
    commits = DeltaTable(str(path)).history(_COMMITS_SEARCHED)
    return next((one["version"] for one in commits if one.get(_MARK) == mark), None)


def _added(file: NewFile) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size_bytes,
        partition_values={BUCKET: str(file.bucket)},
        modification_time=now_us() // 1_000,
        data_change=True,
        stats=json.dumps({"numRecords": file.rows}),
    )


def open_delta(path: Path) -> "Dataset":
    """Any Delta table as it is now; a writer that commits later is not seen. Nothing is read yet:
    a query over the dataset reads only the files and columns that it needs.
    """
    try:
        folder = SubTreeFileSystem(str(path.resolve()), LocalFileSystem())
        dataset: Dataset = DeltaTable(str(path)).to_pyarrow_dataset(filesystem=folder)
    except (DeltaError, OSError) as error:
        raise OfflineTableUnreadable(
            f"The Delta table {path} cannot be read: {str(error).splitlines()[0]}",
            hint="see that the table is whole, and that it needs no newer reader",
        ) from error
    return dataset
