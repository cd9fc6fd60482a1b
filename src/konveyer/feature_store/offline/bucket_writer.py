"""Writing the rows of buckets as Parquet files, from any process, for one commit to take up."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.offline.layout import BUCKET


class OfflineWriteFailed(KonveyerError):
    """A table could not be written; the version that was there stays the readable one."""

    code = "offline_write_failed"


def not_written(view: str, error: Exception) -> OfflineWriteFailed:
    what = str(error).partition("\n")[0]  # a trace may follow
    return OfflineWriteFailed(
        f"The table of '{view}' could not be written: {what}",
        hint="see that the disk has room and the table's folder is whole, then run it again",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """One file of one bucket; `path` is relative to the table's folder."""

    path: str
    bucket: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketWriter:
    """Writes batches that arrive sorted by bucket, a file for each bucket, under `folder`.

    `schema` has the bucket, which the files do not repeat. What it writes in vain (a worker may be
    lost, and its work done again elsewhere) is known by `draft`, which is in every file's name.
    """

    view: str
    folder: Path
    draft: str
    schema: pa.Schema
    group_rows: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> tuple[NewFile, ...]:
        try:
            return tuple(self._write(batches))
        except OSError as error:
            raise not_written(self.view, error) from error

    def _write(self, batches: Iterator[pa.RecordBatch]) -> Iterator[NewFile]:
        file: _BucketFile | None = None
        for batch in batches:
            for bucket, rows in by_bucket(conformed(batch, self.schema)):
                if file is not None and file.bucket != bucket:
                    yield file.finished()
                    file = None
                if file is None:
                    file = _BucketFile(self, bucket)
                file.add(rows)
        if file is not None:
            yield file.finished()

    def remove_all_but(self, kept: Collection[str]) -> None:
        """Remove what was written for this draft in vain; `kept` are paths of `NewFile`."""
        wanted = {self.folder / path for path in kept}
        for path in self.folder.glob(f"{BUCKET}=*/part-{self.draft}-*.parquet"):
            if path not in wanted:
                path.unlink(missing_ok=True)


class _BucketFile:
    """A file that is being written, in row groups of one size."""

    def __init__(self, writer: BucketWriter, bucket: int) -> None:
        self.bucket = bucket
        self._name = f"{BUCKET}={bucket}/part-{writer.draft}-{uuid4().hex}.parquet"
        self._path = writer.folder / self._name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([field for field in writer.schema if field.name != BUCKET])
        self._group_rows = writer.group_rows
        self._file = pq.ParquetWriter(self._path, schema)
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, rows: pa.RecordBatch) -> None:
        self._waiting.append(rows)
        if sum(len(batch) for batch in self._waiting) >= self._group_rows:
            table = pa.Table.from_batches(self._waiting)
            whole = len(table) // self._group_rows * self._group_rows
            self._put(table.slice(0, whole))
            self._waiting = table.slice(whole).to_batches()

    def finished(self) -> NewFile:
        if self._waiting:
            self._put(pa.Table.from_batches(self._waiting))
        self._file.close()
        size_bytes = self._path.stat().st_size
        return NewFile(path=self._name, bucket=self.bucket, rows=self._rows, size_bytes=size_bytes)

    def _put(self, table: pa.Table) -> None:
        self._file.write_table(table, self._group_rows)
        self._rows += len(table)


def by_bucket(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of each bucket in a batch that is sorted by it, without the bucket."""
    buckets = batch.column(BUCKET).to_numpy()
    bounds = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
    rest = batch.drop_columns([BUCKET])
    for start, end in pairwise(bounds):
        if end > start:
            yield int(buckets[start]), rest.slice(start, end - start)


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the types of `schema`; microseconds become instants."""
    arrays = [
        batch.column(field.name).cast(pa.int64()).cast(field.type)
        if pa.types.is_timestamp(field.type)
        else batch.column(field.name).cast(field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
