"""Join keys and request fields as people give them in Python, with their exact types."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from konveyer.core.clock import to_us
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn

_INT64 = range(-(2**63), 2**63)


class BadValue(KonveyerError):
    """A join key or a request field is missing, or of another type."""

    code = "bad_value"


def typed_keys(columns: Sequence[ScalarColumn], values: Mapping[str, Any]) -> list[Any]:
    """The values of join keys, in their order; UUIDs are canonical texts.

    >>> typed_keys([ScalarColumn("client", ColumnType.INT64)], {"client": 7, "more": 1})
    [7]
    """
    return [_typed(column, values) for column in columns]


def typed_fields(columns: Sequence[ScalarColumn], values: Mapping[str, Any]) -> list[Any]:
    """The values of request fields, in their order, which may be None; instants are microseconds.

    >>> typed_fields([ScalarColumn("amount", ColumnType.FLOAT64)], {"amount": None})
    [None]
    """
    return [
        None if values.get(column.name, _Wrong) is None else _typed(column, values)
        for column in columns
    ]


def _typed(column: ScalarColumn, values: Mapping[str, Any]) -> Any:
    try:
        value = values[column.name]
    except KeyError:
        raise BadValue(
            f"'{column.name}' is missing.", hint=f"give it for each entity, as {column.dtype}"
        ) from None
    try:
        found = _exact(column.dtype, value)
    except (TypeError, ValueError, AttributeError):
        found = _Wrong
    if found is _Wrong:
        raise BadValue(f"'{column.name}' is {value!r}.", hint=f"give it as {column.dtype}")
    return found


class _Wrong:
    """Stands for a value that has another type."""


def _exact(dtype: ColumnType, value: Any) -> Any:
    match dtype:
        case ColumnType.INT64:
            return value if type(value) is int and value in _INT64 else _Wrong
        case ColumnType.FLOAT64:
            return float(value) if type(value) in (int, float) else _Wrong
        case ColumnType.BOOL:
            return value if type(value) is bool else _Wrong
        case ColumnType.STRING:
            return value if isinstance(value, str) else _Wrong
        case ColumnType.UUID:
            return str(value if isinstance(value, UUID) else UUID(value))
        case ColumnType.TIMESTAMP:
            return to_us(value) if isinstance(value, datetime) else _Wrong
        case _:
            assert_never(dtype)
