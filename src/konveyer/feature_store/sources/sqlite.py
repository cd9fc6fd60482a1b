"""How SQLite is asked. Its types belong to values, not to columns: the source declares them."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from konveyer.core.schema import ColumnType, DecimalType, Dtype, arrow_schema
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.adbc import AdbcConnection
from konveyer.feature_store.sources.conversion import converted, guessed, widened
from konveyer.feature_store.sources.errors import (
    DatabaseRefused,
    DatabaseUnreadable,
    SourceTypesMissing,
    SourceValueInvalid,
)

_BATCH = {"adbc.sqlite.query.batch_rows": "65536"}
# The driver takes a column's type from the first rows, so one of the declared types goes first.
_SEED = "is_the_seed"
_NUMBERS: dict[Dtype, tuple[str, pa.DataType]] = {
    ColumnType.INT64: ("0", pa.int64()),
    ColumnType.FLOAT64: ("0.0", pa.float64()),
    ColumnType.BOOL: ("0", pa.int64()),
}
_TEXT = ("''", pa.string())
# A fraction is the decimal that it is written as, unless that leaves out some of it.
_DECIMAL = (
    "CASE WHEN typeof({0}) = 'real' AND CAST(CAST({0} AS TEXT) AS REAL) <> {0} "
    "THEN printf('%!.20e', {0}) ELSE CAST({0} AS TEXT) END"
)
_MISMATCH = re.compile(r"Type mismatch in column (\d+): expected \w+ but got (\S+)")
_HELD = {pa.float64(): "fractions", pa.string(): "text", "DOUBLE": "fractions"}


class SQLite:
    """See `Dialect`. A time is ISO 8601 text, a bool 0 or 1, a decimal a number or its text."""

    knows_types = False

    def uri(self, url: str, root: Path) -> str:
        file = root / url.partition(":")[2].removeprefix("///")
        return f"file:{quote(str(file))}?mode=ro"

    def names(self, source: Source, connection: AdbcConnection) -> list[str]:
        nothing = f"SELECT * FROM {_rows(source)} LIMIT 0"  # noqa: S608 - the definition's own
        return list(connection.read(nothing, {}).schema.names)

    def schema(self, source: Source, connection: AdbcConnection) -> pa.Schema:
        if source.columns:
            return arrow_schema(source.declared)
        found = ", ".join(f'"{name}": "{dtype}"' for name, dtype in _guess(source, connection))
        raise SourceTypesMissing(
            f"Source '{source.name}' reads SQLite, whose columns have no types of their own.",
            hint=f"declare them; the first rows fit columns={{{found}}}",
        )

    def batches(self, source: Source, connection: AdbcConnection) -> Iterator[pa.RecordBatch]:
        reader = connection.read(_select(source), _BATCH)
        for column in source.declared:
            arriving = reader.schema.field(column.name).type
            if arriving != _seed(column.dtype)[1]:
                raise _misfit(source, column.name, _HELD.get(arriving, str(arriving)))
        rows = (batch.filter(pa.compute.equal(batch.column(_SEED), 0)) for batch in reader)
        try:
            yield from converted(rows, source.declared, widened, where=f"Source '{source.name}'")
        except DatabaseUnreadable as error:
            found = _MISMATCH.search(error.message)
            if found is None:
                raise
            name = reader.schema.names[int(found[1])]
            raise _misfit(source, name, _HELD.get(found[2], "text")) from None


def _rows(source: Source) -> str:
    if source.table is not None:
        return ".".join(_quoted(source, part) for part in source.table.split("."))
    return f"({(source.query or '').strip().rstrip(';')})"


def _select(source: Source) -> str:
    seeds, selected = [f"1 AS {_SEED}"], ["0"]
    for column in source.declared:
        name = _quoted(source, column.name)
        seeds.append(f"{_seed(column.dtype)[0]} AS {name}")
        selected.append(_selected(name, column.dtype))
    rows = _rows(source)
    return f"SELECT {', '.join(seeds)} UNION ALL SELECT {', '.join(selected)} FROM {rows}"  # noqa: S608


def _seed(dtype: Dtype) -> tuple[str, pa.DataType]:
    return _NUMBERS.get(dtype, _TEXT)


def _selected(name: str, dtype: Dtype) -> str:
    if isinstance(dtype, DecimalType):
        return _DECIMAL.format(name)
    return name if dtype in _NUMBERS else f"CAST({name} AS TEXT)"


def _quoted(source: Source, name: str) -> str:
    """In brackets: SQLite takes an unknown name in double quotes for a text."""
    if "]" in name:
        raise DatabaseRefused(
            f"Source '{source.name}' names '{name}', which cannot be asked for.",
            hint="rename it in a query",
        )
    return f"[{name}]"


def _guess(source: Source, connection: AdbcConnection) -> Iterator[tuple[str, str]]:
    everything = f"SELECT * FROM {_rows(source)}"  # noqa: S608 - the definition's own, read-only
    batch = next(iter(connection.read(everything, _BATCH)), None)
    if batch is None:
        return
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        is_text = pa.types.is_string(values.type)
        named = pa.record_batch({name: values})
        yield name, guessed([named], [name])[name] if is_text else _plain_type(values.type)


def _plain_type(dtype: pa.DataType) -> str:
    return str(ColumnType.FLOAT64 if pa.types.is_floating(dtype) else ColumnType.INT64)


def _misfit(source: Source, column: str, held: str) -> SourceValueInvalid:
    return SourceValueInvalid(
        f"Source '{source.name}', column '{column}' holds {held}, which is not "
        f"{source.columns[column]}.",
        hint="declare the type that it has, or convert it in a query",
    )
