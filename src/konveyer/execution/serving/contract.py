"""The contract of one served version: which fields a request has, and what comes back."""

from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec

from konveyer.bundle.manifest import Manifest
from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column, ColumnType
from konveyer.execution.serving.errors import (
    ExtraField,
    InvalidJson,
    MissingKey,
    NoRows,
    TooManyRows,
    WrongFieldType,
)

MOST_ROWS = 1000
_EXAMPLES: dict[ColumnType, int | str] = {
    ColumnType.INT64: 1,
    ColumnType.STRING: "text",
    ColumnType.UUID: "00000000-0000-0000-0000-000000000001",
}
_INT64 = range(-(2**63), 2**63)


def parse_request(
    body: bytes, keys: tuple[Column, ...]
) -> tuple[list[tuple[int | str, ...]], bool]:
    """The join keys of each row, and whether the request was for a single one.

    A body is one row `{"household_id": 1}`, or `{"rows": [...]}` with up to `MOST_ROWS`.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"The body is not JSON: {error}.", hint=_example(keys)) from error
    if not isinstance(value, dict):
        raise WrongFieldType(f"The body is {_kind(value)}, not an object.", hint=_example(keys))
    if "rows" not in value or "rows" in {key.name for key in keys}:
        return [_row(value, keys, "The request")], True
    rows = value["rows"]
    if len(value) > 1:
        extra = next(name for name in value if name != "rows")
        raise ExtraField(f"'{extra}' stands beside 'rows'.", hint="put every field into a row")
    if not isinstance(rows, list):
        raise WrongFieldType(f"'rows' is {_kind(rows)}, not a list.", hint=_example(keys))
    if not rows:
        raise NoRows("'rows' is empty.", hint=_example(keys))
    if len(rows) > MOST_ROWS:
        raise TooManyRows(
            f"The request has {len(rows)} rows.", hint=f"send at most {MOST_ROWS} at a time"
        )
    return [_row(row, keys, f"Row {place}") for place, row in enumerate(rows)], False


def _row(row: Any, keys: tuple[Column, ...], where: str) -> tuple[int | str, ...]:
    if not isinstance(row, dict):
        raise WrongFieldType(f"{where} is {_kind(row)}, not an object.", hint=_example(keys))
    values = tuple(_field(row, key, where) for key in keys)
    if len(row) > len(keys):
        names = [key.name for key in keys]
        extra = next(name for name in row if name not in names)
        raise ExtraField(
            f"{where} has the field '{extra}', which this model does not take.",
            hint=did_you_mean(extra, names, otherwise=f"it takes {', '.join(names)}"),
        )
    return values


def _field(row: dict[str, Any], key: Column, where: str) -> int | str:
    value = row.get(key.name)
    if value is None:
        problem = "is null" if key.name in row else "is missing"
        raise MissingKey(f"{where}: '{key.name}' {problem}.", hint=f"send it as {key.dtype}")
    exact = _exact(value, key.dtype)
    if exact is None:
        raise WrongFieldType(
            f"{where}: '{key.name}' is {_kind(value)}, not {key.dtype}.",
            hint=f"send it as {key.dtype}",
        )
    return exact


def _exact(value: Any, dtype: ColumnType) -> int | str | None:
    """The join key as the features have it; None when it is not of its type."""
    match value:
        case bool():
            return None
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


def _example(keys: tuple[Column, ...]) -> str:
    return f"send {msgspec.json.encode(example(keys)).decode()}"


def example(keys: tuple[Column, ...]) -> dict[str, Any]:
    """A request that has the right form."""
    return {key.name: _EXAMPLES[key.dtype] for key in keys}


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
        "inputs": {key.name: key.dtype for key in service.keys},
        "output": {"prediction": "float64"},
        "features": {column.name: column.dtype for column in service.columns},
        "example": {
            "request": example(service.keys),
            "url": f"/{manifest.application}/v{manifest.api_version}/predict",
        },
        "objective": manifest.objective,
    }
