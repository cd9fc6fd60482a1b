"""CSV files with declared columns, read as text and converted strictly."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from konveyer.core.errors import did_you_mean
from konveyer.core.schema import arrow_schema
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.engines.base import SourceUnreadable
from konveyer.feature_store.sources.conversion import converted, guessed, parsed
from konveyer.feature_store.sources.errors import SourceTypesMissing, UnknownColumn

_BLOCK_BYTES = 8 << 20


def check_csv(source: Source, files: Sequence[Path]) -> None:
    """Raise unless the columns are declared, every file has them, and its first rows fit.

    An undeclared source is read whole for the hint, which holds the declaration.
    """
    if not source.columns:
        names = _header(source, files[0])
        rows = chain.from_iterable(_text(source, file, names) for file in files)
        found = ", ".join(f'"{name}": "{dtype}"' for name, dtype in guessed(rows, names).items())
        raise SourceTypesMissing(
            f"Source '{source.name}' reads CSV, which does not know its types.",
            hint=f"declare them; all rows fit columns={{{found}}}",
        )
    for file in files:
        next(_rows(source, file), None)


def read_csv(source: Source, files: Sequence[Path]) -> pa.RecordBatchReader:
    """All rows of all files, in order, a block at a time."""
    rows = chain.from_iterable(_rows(source, file) for file in files)
    return pa.RecordBatchReader.from_batches(arrow_schema(source.declared), rows)


def _rows(source: Source, file: Path) -> Iterator[pa.RecordBatch]:
    header = _header(source, file)
    where = f"Source '{source.name}', file {file}"
    for name in source.columns:
        if header.count(name) != 1:
            problem = "more than once" if name in header else "not"
            raise UnknownColumn(
                f"{where}: column '{name}' is {problem} in the header.",
                hint=did_you_mean(name, header, otherwise=f"it has {', '.join(header)}"),
            )
    batches = _text(source, file, list(source.columns))
    yield from converted(batches, source.declared, parsed, where=where)


def _header(source: Source, file: Path) -> list[str]:
    try:
        with _open(source, file) as reader:
            return list(reader.schema.names)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(source, file, error) from error


def _text(source: Source, file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """An empty field is null, unless it is quoted."""
    convert = csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        include_columns=names,
        strings_can_be_null=True,
        null_values=[""],
        quoted_strings_can_be_null=False,
    )
    try:
        with _open(source, file, convert) as reader:
            yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(source, file, error) from error


def _open(
    source: Source, file: Path, convert: csv.ConvertOptions | None = None
) -> csv.CSVStreamingReader:
    return csv.open_csv(
        str(file),
        read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=csv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True),
        convert_options=convert,
    )


def _unreadable(source: Source, file: Path, error: Exception) -> SourceUnreadable:
    first = str(error).splitlines()[0]
    return SourceUnreadable(
        f"Source '{source.name}', file {file}: {first}",
        hint="see that the file is whole, UTF-8, and has the source's delimiter",
    )
