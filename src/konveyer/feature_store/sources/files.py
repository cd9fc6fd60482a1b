"""The files of a source, and whether Parquet files go together."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.schema import MOST_DIGITS, UnsupportedType
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.engines.base import SourceUnreadable
from konveyer.feature_store.sources.errors import (
    SourceChangedMeanwhile,
    SourceFileMissing,
    WrongType,
)
from konveyer.feature_store.sources.kind import Places, SourceKind, kind_of


def files_of(source: Source, root: Path) -> list[Path]:
    """The file, every `*.parquet` under the folder, or what the glob matches, sorted.

    What is hidden or marked as unfinished (a name that begins with `.` or `_`) does not count,
    unless a glob asks for such names.
    """
    path = source.path or ""
    place = root / path
    if place.is_dir():
        # What Spark writes is a folder `name.parquet` of files.
        files = (file for file in place.rglob("*.parquet") if file.is_file())
        found = [file for file in files if _shown(file.relative_to(place))]
    elif place.is_file():
        found = [place]
    else:
        names = glob.glob(path, root_dir=root, recursive=True)  # noqa: PTH207 - `**` and roots
        fixed = _fixed(source, root)
        asked = any(part.startswith((".", "_")) for part in (root / path).relative_to(fixed).parts)
        found = [root / name for name in names if (root / name).is_file()]
        found = [file for file in found if asked or _shown(file.relative_to(fixed))]
    if not found:
        what = "has no files" if place.is_dir() or glob.has_magic(path) else "does not exist"
        raise SourceFileMissing(
            f"Source '{source.name}' reads {path}, which {what}.",
            hint="check the source's path; relative paths start at the workspace",
        )
    return sorted(found)


def partitioned_below(source: Source, root: Path, files: Sequence[Path]) -> Path | None:
    """The source's path where folders below it are named `key=value`, which are columns then.

    Raises where a folder above it is named like a column, which DuckDB would take from there.
    """
    fixed = _fixed(source, root)
    keys = {key for file in files for key in _keys(file.relative_to(fixed).parent)}
    if not keys:
        return None
    columns = {name.lower() for name in (*_schema(source, files[0]).names, *keys)}
    for key in _keys(fixed):
        if key.lower() in columns:
            raise SourceUnreadable(
                f"Source '{source.name}' has a column '{key}', and a folder above it is called "
                f"'{key}=...'.",
                hint="rename the folder, or the column",
            )
    return fixed


def _keys(folder: Path) -> list[str]:
    return [part.partition("=")[0] for part in folder.parts if "=" in part]


def _fixed(source: Source, root: Path) -> Path:
    """The source's path, or of a glob what stands before its first pattern."""
    path = Path(source.path or "")
    if (root / path).exists():
        return root / path
    return root.joinpath(*takewhile(lambda part: not glob.has_magic(part), path.parts))


@contextmanager
def unchanged(sources: Iterable[Source], places: Places) -> Iterator[None]:
    """Raise `SourceChangedMeanwhile` when a file that is there at the beginning of the block is not
    the same at its end. Files of Parquet and CSV alone: those of Delta never change.
    """
    before = [
        (source, file, _state(file))
        for source in sources
        if kind_of(source, places) in (SourceKind.PARQUET, SourceKind.CSV)
        for file in files_of(source, places.root)
    ]
    yield
    for source, file, state in before:
        if _state(file) != state:
            raise SourceChangedMeanwhile(
                f"Source '{source.name}', file {file} changed while it was read.",
                hint="run again when whoever writes it is done; nothing was changed",
            )


def _state(file: Path) -> tuple[int, int, int] | None:
    """What differs after a file was written; None when it is gone."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def check_parquet(source: Source, files: Sequence[Path]) -> None:
    """Raise unless every footer can be read and a column has the same type in all files.

    An engine reads all files with the types of the first, and would round what does not fit.
    DuckDB would round decimals of too many digits, too.
    """
    first = _schema(source, files[0])
    for field in first:
        if pa.types.is_decimal(field.type) and field.type.precision > MOST_DIGITS:
            raise UnsupportedType(
                f"Source '{source.name}', column '{field.name}' has type {field.type}, which a "
                "feature cannot have.",
                hint=f"write it as a decimal of up to {MOST_DIGITS} digits, or as a double",
            )
    types = {field.name: _family(field.type) for field in first}
    for file in files[1:]:
        for field in _schema(source, file):
            expected = types.get(field.name)
            if expected is not None and _family(field.type) != expected:
                one = first.field(field.name).type
                raise WrongType(
                    f"Source '{source.name}', column '{field.name}' is {one} in {files[0].name} "
                    f"and {field.type} in {file.name}.",
                    hint="write the files with one type, or give each kind a source of its own",
                )


def later_columns(source: Source, root: Path) -> dict[str, str]:
    """The columns that the first file lacks, which therefore the source has not: by name, a file
    that has it.
    """
    first, *others = files_of(source, root)
    known = set(_schema(source, first).names)
    found: dict[str, str] = {}
    for file in others:
        found |= {name: file.name for name in _schema(source, file).names if name not in known}
    return found


def _schema(source: Source, file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise SourceUnreadable(
            f"Source '{source.name}', file {file}: {first}",
            hint="restore the file, then run again; nothing was changed",
        ) from error


def _family(dtype: pa.DataType) -> str:
    """Types between which a value never changes, or an engine says so."""
    if pa.types.is_integer(dtype):
        return "integer"
    if pa.types.is_timestamp(dtype):
        return "timestamp"
    if pa.types.is_dictionary(dtype):
        return _family(dtype.value_type)
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return f"list of {_family(dtype.value_type)}"
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return str(pa.string())
    return str(dtype)


def _shown(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)
