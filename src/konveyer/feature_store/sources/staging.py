"""Rows that can be read once only, kept on disk while a run reads them as often as it needs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.processes import is_alive
from konveyer.feature_store.sources.errors import SourceReadFailed


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """A private folder under `place` for the block. Those of killed processes are removed."""
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        process = left.name.partition("-")[0]
        if process.isdigit() and not is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=place) as folder:
        yield Path(folder)


def staged(name: str, rows: pa.RecordBatchReader, folder: Path) -> Path:
    """A Parquet file with all of `rows`, written as they arrive. The reader's errors are raised."""
    file = folder / f"{name}.parquet"
    with pq.ParquetWriter(file, rows.schema) as writer:
        for batch in rows:
            try:
                writer.write_batch(batch)
            except OSError as error:
                raise SourceReadFailed(
                    f"The rows of source '{name}' could not be kept in {folder}: {error}",
                    hint="see that the disk has room, then run again; nothing was changed",
                ) from error
    return file
