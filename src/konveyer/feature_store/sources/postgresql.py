"""How PostgreSQL is asked, and what its types become."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

import pyarrow as pa

from konveyer.core.schema import ColumnType, arrow_schema, column_type
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.adbc import AdbcConnection
from konveyer.feature_store.sources.conversion import converted, plain, widened
from konveyer.feature_store.sources.errors import WrongType

# A server that vanishes is noticed within a minute, not by the hours of TCP's own patience.
_PATIENCE = {
    "application_name": "konveyer",
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_UNREADABLE = ("interval", "money")


class PostgreSQL:
    """See `Dialect`. `numeric` becomes float64, as every fraction in a feature does."""

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
        return arrow_schema(source.declared) if source.columns else pa.schema(map(_natural, found))

    def batches(self, source: Source, connection: AdbcConnection) -> Iterator[pa.RecordBatch]:
        connection.run("SET TRANSACTION READ ONLY")
        reader = connection.read(_select(source, source.columns), {})
        if source.columns:
            return converted(reader, source.declared, widened, where=f"Source '{source.name}'")
        return _naturally(reader, pa.schema(map(_natural, reader.schema)))


def _select(source: Source, columns: Iterable[str]) -> str:
    wanted = ", ".join(_quoted(name) for name in columns) or "*"
    if source.table is not None:
        rows = ".".join(_quoted(part) for part in source.table.split("."))
    else:
        rows = f"({(source.query or '').strip().rstrip(';')}) AS source_rows"
    return f"SELECT {wanted} FROM {rows}"  # noqa: S608 - the definition's own, and read-only


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
    declared = ColumnType(source.columns[field.name])
    found = column_type(_natural(field).type, where=where)
    widens = {
        ColumnType.FLOAT64: {ColumnType.INT64},
        ColumnType.TIMESTAMP: {ColumnType.STRING},  # where every text is a time
    }
    if found is not declared and found not in widens.get(declared, ()):
        raise WrongType(f"{where} is declared {declared}, but it is {found}.", hint=hint)


def _natural(field: pa.Field) -> pa.Field:
    """The column as it is kept when nothing is declared."""
    if _type_name(field) == "numeric":
        return pa.field(field.name, pa.float64())
    if _type_name(field) == "uuid":
        return pa.field(field.name, pa.string())
    is_extension = isinstance(field.type, pa.BaseExtensionType)
    return pa.field(field.name, field.type.storage_type if is_extension else field.type)


def _naturally(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        pairs = zip(batch.columns, schema.types, strict=True)
        arrays = [plain(values).cast(dtype) for values, dtype in pairs]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type_name(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"POSTGRESQL:type", b""), "utf-8")
