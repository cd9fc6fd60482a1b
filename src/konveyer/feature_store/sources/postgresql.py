"""How PostgreSQL is asked, and what its types become."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.schema import (
    MOST_DIGITS,
    ColumnType,
    DecimalType,
    Dtype,
    arrow_schema,
    column_type,
)
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.adbc import AdbcConnection
from konveyer.feature_store.sources.conversion import converted, plain, widened
from konveyer.feature_store.sources.errors import SourceValueInvalid, WrongType

# A server that vanishes is noticed within a minute, not by the hours of TCP's own patience.
_PATIENCE = {
    "application_name": "konveyer",
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# As PostgreSQL's `numerictypmodin` packs them.
_DIGITS = (
    "SELECT attname::text AS name, ((atttypmod - 4) >> 16) & 65535 AS precision, "
    "(atttypmod - 4) & 2047 AS scale FROM pg_catalog.pg_attribute "
    "WHERE attrelid = to_regclass('{table}') AND atttypid = 'numeric'::regtype "
    "AND atttypmod >= 4 AND NOT attisdropped"
)
# 24 November 4714 BC.
_EARLIEST_US = -210_866_803_200_000_000
_UNREADABLE = ("interval", "money")


class PostgreSQL:
    """See `Dialect`. The `numeric(p,s)` of a table becomes a decimal. Otherwise a `numeric` is a
    float64 unless it is declared: the driver does not tell how many digits it has.
    """

    knows_types = True

    def uri(self, url: str, _root: Path) -> str:
        """The URL with our patience, unless it says its own."""
        place, _, query = url.partition("?")
        scheme, _, rest = place.partition("://")
        options = _PATIENCE | dict(parse_qsl(query, keep_blank_values=True))
        return f"{scheme.partition('+')[0]}://{rest}?{urlencode(options, quote_via=quote)}"

    def names(self, source: Source, connection: AdbcConnection) -> list[str]:
        return list(connection.describe(_select(source, ())).names)

    def schema(self, source: Source, connection: AdbcConnection) -> pa.Schema:
        found = connection.describe(_select(source, source.columns))
        for field in found:
            _check(source, field)
        if source.columns:
            return arrow_schema(source.declared)
        return _natural_schema(found, _digits(source, connection))

    def batches(self, source: Source, connection: AdbcConnection) -> Iterator[pa.RecordBatch]:
        connection.run("SET TRANSACTION READ ONLY")
        digits = {} if source.columns else _digits(source, connection)
        reader = connection.read(_select(source, source.columns), {})
        rows = _finite(source, reader)
        if source.columns:
            return converted(rows, source.declared, widened, where=f"Source '{source.name}'")
        return _naturally(source, rows, _natural_schema(reader.schema, digits))


def _select(source: Source, columns: Iterable[str]) -> str:
    wanted = ", ".join(_quoted(name) for name in columns) or "*"
    if source.table is not None:
        rows = ".".join(_quoted(part) for part in source.table.split("."))
    else:
        rows = f"({(source.query or '').strip().rstrip(';')}) AS source_rows"
    return f"SELECT {wanted} FROM {rows}"  # noqa: S608 - the definition's own, and read-only


def _digits(source: Source, connection: AdbcConnection) -> dict[str, DecimalType]:
    """The columns of a table that are numeric(p,s), with that type where a decimal can have it."""
    if source.table is None:
        return {}
    table = ".".join(_quoted(part) for part in source.table.split("."))
    found = connection.read(_DIGITS.format(table=table), {}).read_all()
    types = {
        # The scale is a signed number of 11 bits.
        row["name"]: (row["precision"], (row["scale"] ^ 1024) - 1024)
        for row in found.to_pylist()
    }
    return {
        name: DecimalType(precision, scale)
        for name, (precision, scale) in types.items()
        if precision <= MOST_DIGITS and 0 <= scale <= precision
    }


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _check(source: Source, field: pa.Field) -> None:
    where = f"Source '{source.name}', column '{field.name}'"
    hint = "cast it in a query, or name in columns only what is needed"
    if _type_name(field) in _UNREADABLE:
        raise WrongType(f"{where} is {_type_name(field)}, which cannot be read.", hint=hint)
    if not source.columns:
        return
    declared = source.declared_column(field.name).dtype
    found = column_type(_natural(field).type, where=where)
    if not _fits(declared, found, is_numeric=_type_name(field) == "numeric"):
        raise WrongType(f"{where} is declared {declared}, but it is {found}.", hint=hint)


def _fits(declared: Dtype, found: Dtype, *, is_numeric: bool) -> bool:
    match declared, found:
        case ColumnType.FLOAT64, ColumnType.INT64:
            return True
        case ColumnType.TIMESTAMP, ColumnType.STRING:
            return True  # where every text is a time
        case DecimalType(), _:
            return is_numeric or found is ColumnType.INT64
        case _:
            return declared == found


def _natural_schema(found: pa.Schema, digits: Mapping[str, DecimalType]) -> pa.Schema:
    return pa.schema(
        [
            pa.field(field.name, digits[field.name].arrow)
            if field.name in digits
            else _natural(field)
            for field in found
        ]
    )


def _natural(field: pa.Field) -> pa.Field:
    """The column as it is kept when nothing is known of its digits."""
    if _type_name(field) == "numeric":
        return pa.field(field.name, pa.float64())
    if _type_name(field) == "uuid":
        return pa.field(field.name, pa.string())
    is_extension = isinstance(field.type, pa.BaseExtensionType)
    return pa.field(field.name, field.type.storage_type if is_extension else field.type)


def _finite(source: Source, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Raises where a time is infinite: the driver gives one before all that PostgreSQL has."""
    for batch in batches:
        for field, values in zip(batch.schema, batch.columns, strict=True):
            if not (pa.types.is_timestamp(field.type) or pa.types.is_date(field.type)):
                continue
            earliest_us = pc.min(values).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            if (earliest_us.as_py() or 0) < _EARLIEST_US:
                raise SourceValueInvalid(
                    f"Source '{source.name}', column '{field.name}': a time is infinite.",
                    hint="leave such rows out in a query, or make them null there",
                )
        yield batch


def _naturally(
    source: Source, batches: Iterable[pa.RecordBatch], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        arrays = []
        for values, field in zip(batch.columns, schema, strict=True):
            try:
                arrays.append(plain(values).cast(field.type))
            except pa.ArrowInvalid as error:
                raise SourceValueInvalid(
                    f"Source '{source.name}', column '{field.name}': {error}",
                    hint="leave such values out in a query, or declare the column in `columns`",
                ) from error
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type_name(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"POSTGRESQL:type", b""), "utf-8")
