"""Offline tables in Delta Lake: each write is one atomic version that readers can be pinned to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.dataset import Dataset

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.offline.layout import BUCKET


class OfflineWriteFailed(KonveyerError):
    """A table could not be written; the version that was there stays the readable one."""

    code = "offline_write_failed"


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


class DeltaOfflineStore:
    """Tables under one folder: `<view>/<version of the definition>/`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(
        self, view: str, version: str, rows: pa.RecordBatchReader, *, buckets: int
    ) -> TableRef:
        """Replace the table's content by `rows` in one commit; a failure leaves it as it was.

        `rows` has the column `bucket` and arrives sorted by it; it is streamed.
        """
        path = self._folder / view / version
        path.mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(str(path), rows, mode="overwrite", partition_by=[BUCKET])
            table_version = DeltaTable(str(path)).version()
        except (DeltaError, OSError) as error:
            raise OfflineWriteFailed(
                f"The table of '{view}' could not be written: {error}",
                hint="see that the disk has room, then run ETL again",
            ) from error
        return TableRef(view=view, version=version, table_version=table_version, buckets=buckets)

    def read(self, ref: TableRef, bucket: int, columns: Sequence[str] | None = None) -> pa.Table:
        """One bucket's rows, without the bucket column. Its order is the caller's to check."""
        path = str(self._folder / ref.view / ref.version)
        try:
            table = DeltaTable(path, version=ref.table_version)
            names = [field.name for field in table.schema().fields if field.name != BUCKET]
            return table.to_pyarrow_table(
                filters=[(BUCKET, "=", bucket)],
                columns=names if columns is None else list(columns),
            )
        except (DeltaError, OSError) as error:
            raise OfflineTableUnreadable(
                f"Version {ref.table_version} of the table of '{ref.view}' cannot be read: {error}",
                hint=f"run 'konveyer etl run {ref.view}' to write a new version",
            ) from error


def open_delta(path: Path) -> Dataset:
    """Any Delta table as it is now; a writer that commits later is not seen. Nothing is read yet:
    a query over the dataset reads only the files and columns that it needs.
    """
    try:
        dataset: Dataset = DeltaTable(str(path)).to_pyarrow_dataset()
    except (DeltaError, OSError) as error:
        raise OfflineTableUnreadable(
            f"The Delta table {path} cannot be read: {str(error).splitlines()[0]}",
            hint="see that the table is whole, and that it needs no newer reader",
        ) from error
    return dataset
