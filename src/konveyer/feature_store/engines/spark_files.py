"""Which Parquet files Spark reads as DuckDB would, and the others refused or written anew."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import Dataset, FileSystemDataset
from pyarrow.fs import SubTreeFileSystem

from konveyer.feature_store.engines.base import SourceUnreadable


def first_schema(name: str, files: Sequence[str]) -> pa.Schema:
    """The schema of the first file. Raises where Spark would make something else of a later one.

    Of a column that a file lacks it would make nulls, and of nanoseconds beside microseconds
    moments of another time.
    """
    first = _schema(name, files[0])
    for file in files[1:]:
        types = {field.name.lower(): field.type for field in _schema(name, file)}
        for field in first:
            found = types.get(field.name.lower())
            if found is None:
                raise SourceUnreadable(
                    f"Source '{name}', file {file}: there is no column '{field.name}', "
                    f"as {Path(files[0]).name} has.",
                    hint="write the files with the same columns",
                )
            if is_nanoseconds(found) != is_nanoseconds(field.type):
                raise SourceUnreadable(
                    f"Source '{name}', column '{field.name}' is {field.type} in "
                    f"{Path(files[0]).name} and {found} in {Path(file).name}: Spark cannot read "
                    "the two together.",
                    hint="write the files with one type",
                )
    return first


def is_nanoseconds(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(dtype)) and dtype.unit == "ns"


def partitioned_under(files: Sequence[str]) -> str | None:
    """The folder below which all files stand in folders named as `key=value` of the same keys.

    >>> partitioned_under(["/lake/day=1/a.parquet", "/lake/day=2/b.parquet"])
    '/lake'
    """
    found = {_partition(Path(file)) for file in files}
    if len(found) != 1:
        return None
    base, keys = found.pop()
    return base if keys else None


def _partition(file: Path) -> tuple[str, tuple[str, ...]]:
    folders = file.parent.parts
    places = [place for place, folder in enumerate(folders) if "=" in folder]
    keys = tuple(folders[place].partition("=")[0] for place in places)
    return str(Path(*folders[: places[0]])) if places else "", keys


def dataset_files(name: str, dataset: Dataset, staging: Path) -> list[str]:
    """Files with the rows of a dataset: its own where these hold all of its columns as they are.

    Otherwise (values stand in the names of folders, or columns came later) one in `staging`.
    """
    own = _own_files(dataset)
    if own:
        return own
    file = staging / f"{name}.parquet"
    try:
        with pq.ParquetWriter(file, dataset.schema) as writer:
            for batch in dataset.to_batches():
                writer.write_batch(batch)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, error) from error
    return [str(file)]


def _own_files(dataset: Dataset) -> list[str]:
    if not isinstance(dataset, FileSystemDataset):
        return []
    if not isinstance(dataset.filesystem, SubTreeFileSystem):
        return []
    folder = Path(dataset.filesystem.base_path)
    try:
        fragments = list(dataset.get_fragments())
        if all(_is_whole(part.physical_schema, dataset.schema) for part in fragments):
            return [str(folder / part.path) for part in fragments]
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(str(folder), error) from error
    return []


def _is_whole(found: pa.Schema, wanted: pa.Schema) -> bool:
    return {field.name: _plain(field.type) for field in found} == {
        field.name: _plain(field.type) for field in wanted
    }


def _plain(dtype: pa.DataType) -> str:
    is_text = pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    return str(pa.string() if is_text else dtype)


def _schema(name: str, file: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> SourceUnreadable:
    first = str(error).splitlines()[0]
    return SourceUnreadable(
        f"Source '{name}': {first}",
        hint="restore the files of the source, then run again; nothing was changed",
    )
