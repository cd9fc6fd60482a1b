"""The contract of one served version: which fields a request has, and of which types."""

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from konveyer.bundle.values import INT64, exact_feature, exact_scalar
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.execution.serving.errors import (
    ExtraField,
    InvalidJson,
    MissingField,
    MissingKey,
    NoRows,
    TooManyRows,
    ValueNotAllowed,
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
_NOTHING: Mapping[int, Value] = MappingProxyType({})


class AskedRow(NamedTuple):
    """One row of a request: join keys and request fields, each in the order of the service's.

    `given` are the values of features that the caller sent, by their places. When they are all,
    keys and fields may be missing: then they are None and ().
    """

    keys: tuple[int | str, ...] | None
    fields: tuple[Value, ...]
    given: Mapping[int, Value] = _NOTHING


class RequestContract:
    """What a request to one version holds. All that does not depend on it is worked out once.

    A body is one row `{"household_id": 1}`, or `{"rows": [...]}` with up to `MOST_ROWS`.
    """

    def __init__(self, service: ResolvedService, givable: Collection[str] = ()) -> None:
        self.keys, self.fields = service.keys, service.request
        self.features = service.columns
        self._key_names = tuple(key.name for key in self.keys)
        self._inputs = {column.name: column for column in (*self.keys, *self.fields)}
        self._givable = {
            column.name: (place, column)
            for place, column in enumerate(self.features)
            if column.name in givable and column.name not in self._inputs
        }
        self._refused = {column.name for column in self.features} - self._givable.keys()
        self._needs_one_number = (
            len(self._inputs) == len(self.keys) == 1 and self.keys[0].dtype is ColumnType.INT64
        )

    @property
    def given(self) -> list[Column]:
        """The features whose values callers may send."""
        return [column for _, column in self._givable.values()]

    def example(self) -> dict[str, Any]:
        """A request that has the right form."""
        return {column.name: _EXAMPLES[column.dtype] for column in self._inputs.values()}

    def shape(self, body: bytes) -> tuple[list[Any], bool]:
        """The rows of a body as they came, and whether it was for a single one."""
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidJson(f"The body is not JSON: {error}.", hint=self._hint()) from error
        if not isinstance(value, dict):
            raise WrongFieldType(f"The body is {_kind(value)}, not an object.", hint=self._hint())
        if "rows" not in value or "rows" in self._inputs:
            return [value], True
        rows = value["rows"]
        if len(value) > 1:
            extra = next(name for name in value if name != "rows")
            raise ExtraField(
                f"'{extra:.100}' stands beside 'rows'.", hint="put every field into a row"
            )
        if not isinstance(rows, list):
            raise WrongFieldType(f"'rows' is {_kind(rows)}, not a list.", hint=self._hint())
        return self.counted(rows), False

    def counted(self, rows: list[Any]) -> list[Any]:
        """The same rows, unless they are too many or none."""
        if not rows:
            raise NoRows("The request has no rows.", hint=self._hint())
        if len(rows) > MOST_ROWS:
            raise TooManyRows(
                f"The request has {len(rows)} rows.", hint=f"send at most {MOST_ROWS} at a time"
            )
        return rows

    def keys_of(self, row: Any) -> tuple[Any, ...] | None:
        """The join keys of a row that is not checked yet, as features have them; None when they
        are not there, or of another type.
        """
        if not isinstance(row, dict):
            return None
        keys = tuple(exact_scalar(row.get(key.name), key.dtype) for key in self.keys)
        return None if None in keys else keys

    def read(self, rows: list[Any], *, is_single: bool) -> list[AskedRow]:
        """The rows, each value of its type."""
        if is_single:
            return [self._row(rows[0], None)]
        return [self._row(row, place) for place, row in enumerate(rows)]

    def _row(self, row: Any, place: int | None) -> AskedRow:
        if not isinstance(row, dict):
            raise WrongFieldType(
                f"{_where(place)} is {_kind(row)}, not an object.", hint=self._hint()
            )
        if self._needs_one_number and len(row) == 1:
            value = row.get(self._key_names[0])
            if type(value) is int and value in INT64:
                return AskedRow((value,), ())
        given = self._given(row, place)
        if len(given) == len(self.features) and not any(name in row for name in self._inputs):
            return AskedRow(None, (), given)
        keys = tuple(_key(row, key, place) for key in self.keys)
        return AskedRow(
            keys, tuple(_request_field(row, field, place) for field in self.fields), given
        )

    def _given(self, row: dict[str, Any], place: int | None) -> Mapping[int, Value]:
        given: dict[int, Value] = {}
        for name, value in row.items():
            if name in self._inputs:
                continue
            if name not in self._givable:
                raise self._not_taken(name, place)
            feature, column = self._givable[name]
            given[feature] = feature_value(value, column, place)
        return given or _NOTHING

    def _not_taken(self, name: str, place: int | None) -> KonveyerError:
        if name in self._refused:
            return ValueNotAllowed(
                f"{_where(place)} gives a value for the feature '{name}', which is read online.",
                hint="leave it out; [serving] given in the model's model.toml lists what may be "
                "given",
            )
        names = [*self._inputs, *self._givable]
        return ExtraField(
            f"{_where(place)} has the field '{name:.100}', which this model does not take.",
            hint=did_you_mean(name, names, otherwise=f"it takes {', '.join(names)}"),
        )

    def _hint(self) -> str:
        return f"send {msgspec.json.encode(self.example()).decode()}"


def _where(place: int | None) -> str:
    return "The request" if place is None else f"Row {place}"


def _request_field(row: dict[str, Any], field: ScalarColumn, place: int | None) -> Value:
    """A request field must be there, and may be null."""
    if field.name not in row:
        raise MissingField(
            f"{_where(place)}: '{field.name}' is missing.",
            hint=f"send it as {field.dtype}, or null",
        )
    value = row[field.name]
    exact = None if value is None else exact_scalar(value, field.dtype)
    if value is not None and exact is None:
        raise _wrong(place, field, value)
    return exact


def _key(row: dict[str, Any], key: ScalarColumn, place: int | None) -> int | str:
    value = row.get(key.name)
    if value is None:
        problem = "is null" if key.name in row else "is missing"
        raise MissingKey(
            f"{_where(place)}: '{key.name}' {problem}.", hint=f"send it as {key.dtype}"
        )
    exact = exact_scalar(value, key.dtype)
    if exact is None:
        raise _wrong(place, key, value)
    assert not isinstance(exact, float)  # noqa: S101 - no join key is one
    return exact


def _wrong(place: int | None, column: Column, value: Any) -> WrongFieldType:
    return WrongFieldType(
        f"{_where(place)}: '{column.name}' is {_kind(value)}, not {column.dtype}.",
        hint="send a finite number, or null"
        if _is_infinite(value)
        else f"send it as {column.dtype}",
    )


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def feature_value(value: Any, column: Column, place: int | None = None) -> Value:
    """A value of a feature as the features have it; raises when it is not of the type."""
    exact = None if value is None else exact_feature(value, column.dtype)
    if value is not None and exact is None:
        raise _wrong(place, column, value)
    return exact


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() if value not in INT64:
            return "a number beyond 64 bits"
        case float() if _is_infinite(value):
            return "infinite"
        case int() | float():
            return f"the number {value}"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"
