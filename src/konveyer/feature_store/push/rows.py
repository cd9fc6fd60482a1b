"""Rows that somebody sends to a source: the Arrow table of them, or what is wrong with them."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.clock import BadInstant, format_us, parse_instant, to_us
from konveyer.core.decimals import whole_as_decimals
from konveyer.core.schema import (
    MOST_DIGITS,
    Column,
    ColumnType,
    DecimalType,
    Dtype,
    ListType,
    UnsupportedType,
    arrow_schema,
    column_type,
    decoded,
)
from konveyer.core.texts import CANONICAL_UUID
from konveyer.feature_store.definitions.pushed import PushedColumn
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.etl.limits import outside, places_of
from konveyer.feature_store.push.errors import PushedRowsInvalid, PushTooLarge

MOST_ROWS = 1_000_000
# A sender's clock may be ahead of ours by so much.
AHEAD_US = 5_000_000
_TOLD = 20
_EXACT = 2**53
# The moments that Python's datetimes have, and ISO 8601 can write.
_FIRST_US = to_us(datetime.min.replace(tzinfo=UTC))
_LAST_US = to_us(datetime.max.replace(tzinfo=UTC))
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TOO_FINE = re.compile(r"\.\d{7}")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong with a row, counted from 1."""

    row: int
    column: str
    problem: str


def checked_rows(
    source: Source, keys: Mapping[str, ColumnType], rows: Any, *, now_us: int
) -> pa.Table:
    """The pushed columns of `source`, in its order. Raises with row and column of what is wrong.

    `rows` is a sequence of mappings, or what Arrow reads without a copy: a table, a Polars or a
    pandas frame. Nothing is rounded or guessed; of the columns `keys` none may be null, and those
    that are UUIDs must be written as such.
    """
    columns = [column.column for column in source.pushed]
    if isinstance(rows, Sequence):
        _check_size(len(rows))
        table = _of_mappings(source, columns, rows)
    else:
        given = _read(source, rows)
        _check_size(len(given))
        table = _of_table(source, columns, given)
    problems = [
        problem
        for column in source.pushed
        for problem in _wrong_values(source, column, keys, table.column(column.name), now_us)
    ]
    _refuse(source, problems, len(table))
    return table


def _read(source: Source, rows: Any) -> pa.Table:
    try:
        table = pa.table(rows)
        names = table.column_names  # a ValueError where one is not UTF-8
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise PushedRowsInvalid(
            f"Source '{source.name}': a {type(rows).__name__} is not rows: {error}",
            hint="give a list of dicts, or an Arrow, Polars or pandas frame",
        ) from error
    twice = {name for name in names if names.count(name) > 1}
    _refuse(source, [Problem(1, name, "it is there more than once") for name in twice], len(table))
    return table


def _check_size(rows: int) -> None:
    if not 0 < rows <= MOST_ROWS:
        raise PushTooLarge(
            f"A push has from 1 to {MOST_ROWS:,} rows, and this one has {rows:,}.",
            hint="send them in several pushes, each with a key of its own",
        )


def _refuse(source: Source, problems: Sequence[Problem], rows: int) -> None:
    if not problems:
        return
    first = min(problems)
    bad = len({problem.row for problem in problems})
    raise PushedRowsInvalid(
        f"Source '{source.name}', row {first.row}, column '{first.column}': {first.problem}.",
        hint=f"{bad} of {rows} row(s) do not fit, and nothing was kept: correct them, and push all "
        "of them again",
        detail={
            "problems": [
                {"row": one.row, "column": one.column, "problem": one.problem}
                for one in sorted(problems)[:_TOLD]
            ]
        },
    )


def _of_mappings(source: Source, columns: Sequence[Column], rows: Sequence[Any]) -> pa.Table:
    known = {column.name for column in columns}
    problems, cells = list[Problem](), [list[Any]() for _ in columns]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            problems.append(Problem(number, "", f"{row!r:.80} is not an object with columns"))
            continue
        unknown = sorted(map(str, row.keys() - known))
        problems += [Problem(number, name, "the source has no such column") for name in unknown]
        for column, values in zip(columns, cells, strict=True):
            if column.name not in row:
                problems.append(Problem(number, column.name, "it is missing; write null"))
                continue
            try:
                values.append(_cell(row[column.name], column.dtype))
            except ValueError as error:
                problems.append(Problem(number, column.name, str(error)))
    _refuse(source, problems, len(rows))
    arrays = [_array(column, values) for column, values in zip(columns, cells, strict=True)]
    return pa.table(arrays, schema=arrow_schema(columns))


def _array(column: Column, values: list[Any]) -> pa.Array:
    if column.dtype is ColumnType.TIMESTAMP:
        return pa.array(values, pa.int64()).cast(column.dtype.arrow)
    return pa.array(values, column.dtype.arrow)


def _cell(value: Any, dtype: Dtype) -> Any:
    """One value as Arrow takes it; instants as microseconds. Raises `ValueError`."""
    if value is None:
        return None
    match dtype:
        case DecimalType():
            return _decimal(value, dtype)
        case ListType() if isinstance(value, list | tuple):
            return [_cell(item, dtype.item) for item in value]
        case ColumnType.INT64 if type(value) is int and -(2**63) <= value < 2**63:
            return value
        case ColumnType.FLOAT64 if type(value) is float:
            return value
        case ColumnType.FLOAT64 if type(value) is int and -_EXACT <= value <= _EXACT:
            return float(value)
        case ColumnType.BOOL if type(value) is bool:
            return value
        case ColumnType.STRING if isinstance(value, str):
            value.encode()  # half a character is a ValueError
            return value
        # pandas has datetimes that are finer, and one that is none, with NaN for it.
        case ColumnType.TIMESTAMP if isinstance(value, datetime) and not getattr(
            value, "nanosecond", 0
        ):
            return to_us(value)
        case ColumnType.TIMESTAMP if isinstance(value, str) and not _TOO_FINE.search(value):
            try:
                return parse_instant(value)
            except BadInstant as error:
                raise ValueError(f"{error.message.rstrip('.')}; {error.hint}") from error
    raise ValueError(f"{value!r:.80} is not {dtype}")


def _decimal(value: Any, dtype: DecimalType) -> Decimal:
    """Of a float what it is written as, where that many digits survive its bits."""
    match value:
        case bool():
            found = None
        case Decimal() | int() | str():
            found = _parsed(str(value))
        case float():
            found = _parsed(repr(value))
            if found is not None and len(found.as_tuple().digits) > sys.float_info.dig:
                found = None
        case _:
            found = None
    if found is None or not found.is_finite():
        raise ValueError(f"{value!r:.80} is not {dtype}; write it as text, such as '12.50'")
    digits = Context(prec=MOST_DIGITS, traps=[Inexact, InvalidOperation])
    try:
        exact = found.quantize(Decimal(1).scaleb(-dtype.scale), context=digits)
    except (Inexact, InvalidOperation):
        exact = None
    if exact is None or (exact and exact.adjusted() >= dtype.precision - dtype.scale):
        raise ValueError(f"{value!r:.80} does not fit into {dtype}")
    return exact


def _parsed(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _of_table(source: Source, columns: Sequence[Column], given: pa.Table) -> pa.Table:
    known = {column.name for column in columns}
    problems = [
        Problem(1, name, "the source has no such column")
        for name in given.column_names
        if name not in known
    ]
    arrays = []
    for column in columns:
        if column.name not in given.column_names:
            problems.append(Problem(1, column.name, "it is missing"))
            continue
        values = given.column(column.name)
        try:
            arrays.append(_cast(values, column))
        except ValueError as error:
            problems.append(Problem(_first_bad(values, column) + 1, column.name, str(error)))
    _refuse(source, problems, len(given))
    return pa.table(arrays, schema=arrow_schema(columns))


def _cast(values: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Raises `ValueError` (Arrow's own is one) where a value would change."""
    try:
        values.validate(full=True)  # Arrow's readers take texts that are not UTF-8
    except pa.ArrowInvalid as error:
        raise ValueError(f"it is damaged, or has a text that is not UTF-8: {error}") from error
    values = decoded(values)
    if pa.types.is_null(values.type):
        return values.cast(column.dtype.arrow)
    try:
        found = column_type(values.type, where=column.name)
    except UnsupportedType:
        found = None
    if not _becomes(found, column.dtype):
        raise ValueError(f"it is {values.type}, not {column.dtype}")
    if found is ColumnType.INT64 and isinstance(column.dtype, DecimalType):
        return whole_as_decimals(values, column.dtype.arrow)
    if column.dtype is ColumnType.TIMESTAMP and values.type != column.dtype.arrow:
        zone = values.type.tz if pa.types.is_timestamp(values.type) else None
        values = values.cast(pa.timestamp("us", tz=zone))
    return values.cast(column.dtype.arrow)


def _becomes(found: Dtype | None, wanted: Dtype) -> bool:
    """Whether values of one type are values of another, where they fit."""
    match found, wanted:
        case (ColumnType.INT64, ColumnType.FLOAT64) | (ColumnType.INT64, DecimalType()):
            return True
        case DecimalType(), DecimalType():
            return True
        case ListType(item=item), ListType(item=other):
            return _becomes(item, other)
        case _:
            return found == wanted


def _first_bad(values: pa.ChunkedArray, column: Column) -> int:
    """By halving, where the first value is that cannot be converted."""
    start, end = 0, len(values)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            _cast(values.slice(start, middle - start), column)
            start = middle
        except ValueError:
            end = middle
    return start


def _wrong_values(
    source: Source,
    column: PushedColumn,
    keys: Mapping[str, ColumnType],
    values: pa.ChunkedArray,
    now_us: int,
) -> Iterator[Problem]:
    for place, problem in outside(column, values):
        yield Problem(place + 1, column.name, problem)
    needed = column.name in keys or column.name == source.event_time
    if needed and column.nullable and values.null_count:
        what = "the event time" if column.name == source.event_time else "a join key"
        for place in places_of(values.is_null()):
            yield Problem(place + 1, column.name, f"{what} is null")
    if keys.get(column.name) is ColumnType.UUID and pa.types.is_string(values.type):
        canonical = pc.match_substring_regex(values, CANONICAL_UUID, ignore_case=True)
        for place in places_of(pc.invert(canonical)):
            what = f"{values[place].as_py()!r:.80} is no UUID, 8-4-4-4-12 hexadecimal digits"
            yield Problem(place + 1, column.name, what)
    if pa.types.is_timestamp(values.type):
        times_us = values.cast(pa.int64())
        beyond = pc.or_(pc.less(times_us, _FIRST_US), pc.greater(times_us, _LAST_US))
        for place in places_of(beyond):
            yield Problem(place + 1, column.name, "it is not in the years 1 to 9999")
        if column.name == source.event_time:
            later = pc.greater(times_us, now_us + AHEAD_US)
            for place in places_of(pc.and_not(later, beyond)):
                what = f"{format_us(times_us[place].as_py())} is later than now"
                yield Problem(place + 1, column.name, f"{what}, {format_us(now_us)}")
