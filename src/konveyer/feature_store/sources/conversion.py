"""Rows with declared types out of rows that know none, or others. Nothing is guessed."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.decimals import whole_as_decimals
from konveyer.core.schema import Column, ColumnType, DecimalType, Dtype
from konveyer.feature_store.sources.errors import SourceValueInvalid

_WITH_ZONE = r"\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?)$"
_LEADING_ZERO = r"^-?0\d"
# A type that fits all values of a column is its type: the first of these.
_GUESSES = (ColumnType.INT64, ColumnType.FLOAT64, ColumnType.BOOL, ColumnType.TIMESTAMP)


def parsed(text: pa.Array, dtype: Dtype) -> pa.Array:
    """Text as `dtype`; ISO 8601 times, where none says its zone in UTC. Raises `pa.ArrowInvalid`.

    >>> parsed(pa.array(["12", None]), ColumnType.INT64).to_pylist()
    [12, None]
    >>> times = pa.array(["2026-01-01 02:00:00+02:00", "2026-01-01"])
    >>> [str(time) for time in parsed(times, ColumnType.TIMESTAMP).to_pylist()]
    ['2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00']
    """
    if dtype is not ColumnType.TIMESTAMP:
        values = pc.cast(text, dtype.arrow)
        _check_as_written(text, values, dtype)
        return values
    zoned = pc.match_substring_regex(text, _WITH_ZONE)
    nothing = pa.scalar(None, pa.string())
    with_zone = pc.cast(pc.if_else(zoned, text, nothing), dtype.arrow)
    without = pc.cast(pc.if_else(zoned, nothing, text), pa.timestamp("us"))
    return pc.coalesce(with_zone, pc.assume_timezone(without, "UTC"))


def _check_as_written(text: pa.Array, values: pa.Array, dtype: Dtype) -> None:
    """Arrow also takes hexadecimal numbers, and numbers beyond a double for infinite ones."""
    match dtype:
        case ColumnType.INT64:
            wrong = pc.match_substring(text, "x", ignore_case=True)
        case ColumnType.FLOAT64:
            named = pc.match_substring(text, "inf", ignore_case=True)
            wrong = pc.and_(pc.is_inf(values), pc.invert(named))
        case _:
            return
    if pc.any(wrong).as_py():
        raise pa.ArrowInvalid("a number that is written otherwise")


def widened(values: pa.Array, dtype: Dtype) -> pa.Array:
    """Typed values as `dtype`; of text only times and decimals. Raises `pa.ArrowInvalid`."""
    values = plain(values)
    if isinstance(dtype, DecimalType) and pa.types.is_integer(values.type):
        return whole_as_decimals(values, dtype.arrow)
    if dtype is ColumnType.TIMESTAMP and pa.types.is_string(values.type):
        return parsed(values, dtype)
    if dtype is ColumnType.BOOL and pa.types.is_integer(values.type):
        # Arrow takes every other number for true.
        allowed = pa.array([0, 1, None], values.type)
        if not pc.all(pc.is_in(values, value_set=allowed), min_count=0).as_py():
            raise pa.ArrowInvalid("a number that is neither 0 nor 1")
    return pc.cast(values, dtype.arrow)


def plain(values: pa.Array) -> pa.Array:
    """The values of an extension type as they are stored; a UUID as its text."""
    if isinstance(values, pa.UuidArray):
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        return pa.array(texts, pa.string())
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def converted(
    batches: Iterable[pa.RecordBatch],
    columns: Sequence[Column],
    convert: Callable[[pa.Array, Dtype], pa.Array],
    *,
    where: str,
) -> Iterator[pa.RecordBatch]:
    """Batches of `columns`, each converted; raises `SourceValueInvalid` with column, row and value.

    Rows are counted from 1, without a header.
    """
    schema = pa.schema([(column.name, column.dtype.arrow) for column in columns])
    rows = 0
    for batch in batches:
        arrays = []
        for column in columns:
            values = batch.column(column.name)
            try:
                arrays.append(convert(values, column.dtype))
            except pa.ArrowInvalid as error:
                place, value = _first_bad(values, column.dtype, convert)
                raise SourceValueInvalid(
                    f"{where}, column '{column.name}', row {rows + place + 1}: "
                    f"{value!r} is not {column.dtype}.",
                    hint="correct the value, or the column's type in the source",
                ) from error
        rows += batch.num_rows
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def guessed(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> dict[str, str]:
    """For each text column the type that all of its values fit. A code such as 0042 stays text.

    >>> rows = pa.record_batch({"id": ["1", "2"], "zip": ["0042", "1204"]})
    >>> guessed([rows], ["id", "zip"])
    {'id': 'int64', 'zip': 'string'}
    """
    left = {name: list(_GUESSES) for name in names}
    empty = set(names)
    for batch in batches:
        for name in names:
            values = batch.column(name)
            if values.null_count < len(values):
                empty.discard(name)
            if pc.any(pc.match_substring_regex(values, _LEADING_ZERO)).as_py():
                left[name] = [dtype for dtype in left[name] if not dtype.is_number]
            left[name] = [dtype for dtype in left[name] if _fits(values, dtype)]
    return {
        name: str(left[name][0] if left[name] and name not in empty else ColumnType.STRING)
        for name in names
    }


def _fits(values: pa.Array, dtype: Dtype) -> bool:
    try:
        parsed(values, dtype)
    except pa.ArrowInvalid:
        return False
    return True


def _first_bad(
    values: pa.Array, dtype: Dtype, convert: Callable[[pa.Array, Dtype], pa.Array]
) -> tuple[int, object]:
    """By halving, where the first value is that cannot be converted."""
    start, end = 0, len(values)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            convert(values.slice(start, middle - start), dtype)
            start = middle
        except pa.ArrowInvalid:
            end = middle
    return start, values[start].as_py()
