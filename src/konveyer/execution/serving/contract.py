"""The contract of one served version: which fields a request has, and what comes back."""

from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from konveyer.bundle.manifest import Manifest
from konveyer.core.clock import BadInstant, parse_instant
from konveyer.core.errors import did_you_mean
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.serving.errors import (
    ExtraField,
    InvalidJson,
    MissingField,
    MissingKey,
    NoRows,
    TooManyRows,
    WrongFieldType,
)
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.online.codec import Value

MOST_ROWS = 1000
_EXAMPLES: dict[ColumnType, int | float | str] = {
    ColumnType.INT64: 1,
    ColumnType.FLOAT64: 1.5,
    ColumnType.BOOL: True,
    ColumnType.TIMESTAMP: "2026-01-01T00:00:00Z",
    ColumnType.STRING: "text",
    ColumnType.UUID: "00000000-0000-0000-0000-000000000001",
}
_INT64 = range(-(2**63), 2**63)


class AskedRow(NamedTuple):
    """One row of a request: join keys and request fields, each in the order of the service's."""

    keys: tuple[int | str, ...]
    fields: tuple[Value, ...]


def parse_request(body: bytes, service: ResolvedService) -> tuple[list[AskedRow], bool]:
    """The rows of a request, and whether it was for a single one.

    A body is one row `{"household_id": 1}`, or `{"rows": [...]}` with up to `MOST_ROWS`.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(f"The body is not JSON: {error}.", hint=_example(service)) from error
    if not isinstance(value, dict):
        raise WrongFieldType(f"The body is {_kind(value)}, not an object.", hint=_example(service))
    if "rows" not in value or "rows" in _names(service):
        return [_row(value, service, "The request")], True
    rows = value["rows"]
    if len(value) > 1:
        extra = next(name for name in value if name != "rows")
        raise ExtraField(f"'{extra}' stands beside 'rows'.", hint="put every field into a row")
    if not isinstance(rows, list):
        raise WrongFieldType(f"'rows' is {_kind(rows)}, not a list.", hint=_example(service))
    if not rows:
        raise NoRows("'rows' is empty.", hint=_example(service))
    if len(rows) > MOST_ROWS:
        raise TooManyRows(
            f"The request has {len(rows)} rows.", hint=f"send at most {MOST_ROWS} at a time"
        )
    return [_row(row, service, f"Row {place}") for place, row in enumerate(rows)], False


def _names(service: ResolvedService) -> list[str]:
    return [column.name for column in (*service.keys, *service.request)]


def _row(row: Any, service: ResolvedService, where: str) -> AskedRow:
    if not isinstance(row, dict):
        raise WrongFieldType(f"{where} is {_kind(row)}, not an object.", hint=_example(service))
    keys = tuple(_field(row, key, where) for key in service.keys)
    fields = tuple(_request_field(row, field, where) for field in service.request)
    if len(row) > len(keys) + len(fields):
        names = _names(service)
        extra = next(name for name in row if name not in names)
        raise ExtraField(
            f"{where} has the field '{extra}', which this model does not take.",
            hint=did_you_mean(extra, names, otherwise=f"it takes {', '.join(names)}"),
        )
    return AskedRow(keys, fields)


def _request_field(row: dict[str, Any], field: ScalarColumn, where: str) -> Value:
    """A request field must be there, and may be null."""
    if field.name not in row:
        raise MissingField(
            f"{where}: '{field.name}' is missing.", hint=f"send it as {field.dtype}, or null"
        )
    value = row[field.name]
    exact = None if value is None else _exact(value, field.dtype)
    if value is not None and exact is None:
        raise _wrong(where, field, value)
    return exact


def _field(row: dict[str, Any], key: ScalarColumn, where: str) -> int | str:
    value = row.get(key.name)
    if value is None:
        problem = "is null" if key.name in row else "is missing"
        raise MissingKey(f"{where}: '{key.name}' {problem}.", hint=f"send it as {key.dtype}")
    exact = _exact(value, key.dtype)
    if exact is None:
        raise _wrong(where, key, value)
    assert not isinstance(exact, float)  # noqa: S101 - no join key is one
    return exact


def _wrong(where: str, column: ScalarColumn, value: Any) -> WrongFieldType:
    return WrongFieldType(
        f"{where}: '{column.name}' is {_kind(value)}, not {column.dtype}.",
        hint=f"send it as {column.dtype}",
    )


def _exact(value: Any, dtype: ColumnType) -> int | float | str | None:
    """The value as the features have it; None when it is not of its type."""
    match value:
        case bool():
            return value if dtype is ColumnType.BOOL else None
        case int() | float() if dtype is ColumnType.FLOAT64:
            return float(value)
        case str() if dtype is ColumnType.TIMESTAMP:
            with suppress(BadInstant):
                return parse_instant(value)
        case int() if dtype is ColumnType.INT64 and value in _INT64:
            return value
        case str() if dtype is ColumnType.STRING:
            return value
        case str() if dtype is ColumnType.UUID:
            with suppress(ValueError):
                return str(UUID(value))
    return None


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


def _example(service: ResolvedService) -> str:
    return f"send {msgspec.json.encode(example(service)).decode()}"


def example(service: ResolvedService) -> dict[str, Any]:
    """A request that has the right form."""
    return {column.name: _EXAMPLES[column.dtype] for column in (*service.keys, *service.request)}


def describe(manifest: Manifest, *, digest: str, release: str, since_us: int) -> dict[str, Any]:
    """What `GET /{application}/v{api_version}` answers."""
    service = manifest.service
    return {
        "application": manifest.application,
        "api_version": manifest.api_version,
        "description": manifest.description,
        "owner": manifest.owner,
        "bundle": digest,
        "release": release,
        "live_since_us": since_us,
        "inputs": {column.name: column.dtype for column in (*service.keys, *service.request)},
        "output": {column.name: column.dtype for column in manifest.model.outputs},
        "model": {"form": manifest.model.form, "reason": manifest.model.reason},
        "features": {column.name: str(column.dtype) for column in service.columns},
        "example": {
            "request": example(service),
            "url": f"/{manifest.application}/v{manifest.api_version}/predict",
        },
        "objective": manifest.objective,
    }
