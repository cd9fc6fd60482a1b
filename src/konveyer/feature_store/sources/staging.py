"""Rows that can be read once only, kept on disk while a run reads them as often as it needs."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.files import locked
from konveyer.feature_store.sources.errors import SourceReadFailed

_LOCK = ".lock"


@contextmanager
def staging_folder(place: Path) -> Iterator[Path]:
    """A private folder under `place` for the block. Those of killed processes are removed."""
    place.mkdir(parents=True, exist_ok=True)
    folder = place / uuid4().hex
    with ExitStack() as held:
        with locked(_lock_of(place)):  # until the folder has a lock of its own
            _remove_left(place)
            held.enter_context(locked(_lock_of(folder)))
        held.callback(_remove, folder)
        folder.mkdir(mode=0o700)
        yield folder


def remove_left(place: Path) -> None:
    """Remove what killed processes left under `place`."""
    if place.is_dir():
        with locked(_lock_of(place)):
            _remove_left(place)


def _remove_left(place: Path) -> None:
    """A lock ends with its process, also where processes of several containers share ids."""
    for name in {path.name.removesuffix(_LOCK) for path in place.iterdir()}:
        with suppress(BlockingIOError), locked(_lock_of(place / name), wait=False):
            _remove(place / name)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}{_LOCK}")


def staged(name: str, rows: pa.RecordBatchReader, folder: Path) -> Path:
    """A Parquet file with all of `rows`, written as they arrive. The reader's errors are raised."""
    file = folder / f"{name}.parquet"
    # Around all of it: opening and closing a file write too.
    with keeping(name, folder), pq.ParquetWriter(file, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
    return file


@contextmanager
def keeping(name: str, folder: Path) -> Iterator[None]:
    """Say whose rows they are that the disk does not take."""
    try:
        yield
    except OSError as error:
        raise SourceReadFailed(
            f"The rows of source '{name}' could not be kept in {folder}: {error}",
            hint="see that the disk has room, then run again; nothing was changed",
        ) from error
