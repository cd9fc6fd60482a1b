"""Which Parquet files Spark reads as DuckDB would, and the others refused or written anew."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import Dataset, FileSystemDataset
from pyarrow.fs import SubTreeFileSystem

from konveyer.core.errors import KonveyerError, explained, is_of_full_disk
from konveyer.feature_store.engines.base import SourceUnreadable

_NULL = "__HIVE_DEFAULT_PARTITION__"
# A number with a zero before it is a text, and one of 19 digits may not fit.
_WRITTEN = {
    re.compile(r"0|-?[1-9]\d{0,17}"): "BIGINT",
    re.compile(r"\d{4}-\d\d-\d\d"): "DATE",
    re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?"): "TIMESTAMP_NTZ",
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Below `folder`, folders are named `key=value`; `types` are the SQL types of keys."""

    folder: str
    types: dict[str, str]


def partition_of(files: Sequence[str], below: str) -> Partition | None:
    """How files are partitioned below a folder, or None when they are not all so, by the same keys.

    As with DuckDB, a key is a whole number or a date where all of its values are written like one.

    >>> found = partition_of(["/env=x/day=1/a.parquet", "/env=x/day=2/b.parquet"], "/env=x")
    >>> found.folder, found.types
    ('/env=x', {'day': 'BIGINT'})
    """
    found = [_keys_of(Path(file), Path(below)) for file in files]
    folder, first = found[0]
    if not first or any((place, [*keys]) != (folder, [*first]) for place, keys in found):
        return None
    return Partition(
        folder=folder, types={key: _sql_type([keys[key] for _, keys in found]) for key in first}
    )


def _keys_of(file: Path, below: Path) -> tuple[str, dict[str, str]]:
    folders = file.relative_to(below).parent.parts
    places = [place for place, folder in enumerate(folders) if "=" in folder]
    keys = (folders[place].partition("=") for place in places)
    folder = str(below.joinpath(*folders[: places[0]])) if places else ""
    return folder, {key: unquote(value) for key, _, value in keys}


def _sql_type(values: Sequence[str]) -> str:
    known = [value for value in values if value != _NULL]
    for written, sql_type in _WRITTEN.items():
        if known and all(written.fullmatch(value) for value in known):
            return sql_type
    return "STRING"


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
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return f"list of {_plain(dtype.value_type)}"
    is_text = pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    return str(pa.string() if is_text else dtype)


def _schema(name: str, file: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> KonveyerError:
    if is_of_full_disk(error):
        return explained(error)
    first = str(error).splitlines()[0]
    return SourceUnreadable(
        f"Source '{name}': {first}",
        hint="restore the files of the source, then run again; nothing was changed",
    )
