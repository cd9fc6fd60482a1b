"""What a training set is made of: its manifest, and its rows, held or in files."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.errors import Conflict, KonveyerError
from konveyer.core.files import file_written_whole, folder_written_whole
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.offline.table_version import TableRef

# The rows of a large training set are files in a folder of that name.
DATA, MANIFEST = "data.parquet", "manifest.json"
# Beside the training sets: what is being built, or was left by a build that was killed.
DRAFTS = ".drafts"


class OutputExists(Conflict):
    """Something stands where the rows of a training set should be written: a folder where they are
    one file, or anything where they are a folder of files.
    """

    code = "output_exists"


class TrainingSetNotWritten(KonveyerError):
    """The disk is full, or the folder may not be written."""

    code = "training_set_not_written"


class TrainingSetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the content depends on: from the same labels it gives the same content.

    `keys` are the label frame's columns that hold the join keys, in the order of the service's;
    `columns` maps those join keys that have another name there.
    """

    id: str
    service: ResolvedService
    tables: tuple[TableRef, ...]
    keys: tuple[str, ...]
    columns: dict[str, str]
    timestamp: str
    label: str | None
    rows: int
    labels_digest: str
    result_digest: str
    built_by: str
    built_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """The label frame's columns and rows, in their order, then the features of the service.

    `held` are the rows, or None when there are so many that they stay in the files of `path`.
    """

    manifest: TrainingSetManifest
    path: Path
    held: pa.Table | None

    @property
    def table(self) -> pa.Table:
        """All rows, in memory."""
        return self.read()

    @property
    def column_names(self) -> list[str]:
        names: list[str] = self._schema().names
        return names

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, or some columns of them; reads no other columns."""
        names = self.column_names if columns is None else list(columns)
        if self.held is not None:
            return self.held.select(names)
        return pa.concat_tables(
            pq.ParquetFile(file).read(names).select(names) for file in data_files(self.path)
        )

    def to_polars(self) -> Any:
        """As a Polars frame, without a copy."""
        import polars as pl

        return pl.from_arrow(self.table)

    def to_pandas(self) -> Any:
        """As a pandas frame; needs pandas."""
        return self.table.to_pandas()

    def write_to(self, output: str | Path) -> None:
        """Write the rows to a Parquet file; those that stay in files to a folder of them."""
        output, data = Path(output), self.path / DATA
        in_files = self.held is None and data.is_dir()
        with _written_to(output, self.manifest.id):
            check_output(output, in_files=in_files)
            if in_files:
                with folder_written_whole(output) as draft:
                    shutil.copytree(data, draft, dirs_exist_ok=True)
                return
            with file_written_whole(output) as draft:
                if self.held is None:
                    shutil.copyfile(data, draft)
                else:
                    pq.write_table(self.held, draft)

    def _schema(self) -> pa.Schema:
        if self.held is not None:
            return self.held.schema
        return pq.read_schema(data_files(self.path)[0])


def check_output(output: Path, *, in_files: bool) -> None:
    """Raise when rows, which are one file or stay `in_files`, cannot be written there."""
    if in_files and (output.is_file() or (output.is_dir() and any(output.iterdir()))):
        raise OutputExists(
            f"{output} is there already.",
            hint="so many rows become a folder of files: name one that is not there",
        )
    if not in_files and output.is_dir():
        raise OutputExists(
            f"{output} is a folder.", hint=f"name a file, such as {output / 'rows.parquet'}"
        )


@contextmanager
def written_below(folder: Path, what: str = "The training set") -> Iterator[None]:
    """Say what the disk does not take."""
    try:
        yield
    except OSError as error:
        raise TrainingSetNotWritten(
            f"{what} could not be written below {folder}: {error}",
            hint="see that the disk has room, then run it again; nothing was kept",
        ) from error


@contextmanager
def _written_to(output: Path, training_set: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingSetNotWritten(
            f"The rows of training set {training_set} could not be written to {output}: {error}",
            hint="the training set is kept: see that the disk has room and the folder may be "
            f"written, then 'konveyer training-set rebuild {training_set} --output FILE'",
        ) from error


def data_files(training_set: Path) -> list[Path]:
    """The Parquet files with the rows of the training set in a folder, in their order."""
    data = training_set / DATA
    return sorted(data.glob("*.parquet")) if data.is_dir() else [data]
