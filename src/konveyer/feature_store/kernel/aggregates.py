"""The aggregates: each reduces ranges of a series, those of all spine rows at once."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import assert_never

import numpy as np
import pyarrow as pa

from konveyer.core.decimals import decimals_of, nearest_doubles
from konveyer.core.schema import MOST_DIGITS
from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.errors import NumberOverflow
from konveyer.feature_store.kernel.series import Mask, Series, Values, expanded

_HALF = 2**32 - 1
Span = tuple[Ints, Ints]


class Ranges:
    """A series in ranges of its rows: each spine row has one in each of `spans`, one after another.

    A span is the bounds `low:high` of all spine rows; `low` rises.
    """

    def __init__(self, series: Series, *spans: Span) -> None:
        self._series, self._spans = series, spans

    def aggregate(self, function: AggregationFunction) -> pa.Array:
        """One aggregate per spine row. One without a row that counts gives 0 for counts, else null.

        Whole numbers are summed exactly in 64 bits, and decimals of up to 18 digits in 128; wider
        ones are counted and picked only. A mean of whole numbers is right also where
        their sum leaves 64 bits. A NaN is a value that makes its range's sum, mean, min, max and
        stddev NaN. `count_distinct` is for one span alone.
        """
        series, spans, count = self._series, self._spans, self._count
        match function:
            case "count":
                return pa.array(count)
            case "sum":
                return self._sum
            case "mean":
                return pa.array(self._sum_as_doubles / np.maximum(count, 1), mask=count == 0)
            case "min":
                return _typed(series, _reduced(np.minimum, series.or_highest, spans), count)
            case "max":
                return _typed(series, _reduced(np.maximum, series.or_lowest, spans), count)
            case "stddev":
                return pa.array(_stddev(series, spans, count) / self._unit, mask=count < 2)
            case "first":
                return _picked(series, _first(series, spans), count)
            case "last":
                return _picked(series, _last(series, spans), count)
            case "count_distinct":
                (span,) = spans
                return pa.array(_count_distinct(series, *span))
            case _:
                assert_never(function)

    @cached_property
    def _count(self) -> Ints:
        count = np.zeros(len(self._spans[0][0]), np.int64)
        for low, high in self._spans:
            count += self._series.counts(low, high)
        return count

    @cached_property
    def _sum(self) -> pa.Array:
        series, spans = self._series, self._spans
        if self._scale is None:
            return pa.array(_sum(series, spans), mask=self._count == 0)
        return _decimal_sum(series, spans, self._scale, self._count > 0)

    @cached_property
    def _sum_as_doubles(self) -> Values:
        series = self._series
        if self._scale is not None:
            doubles = nearest_doubles(self._sum)
        elif series.numbers.dtype.kind == "f" or not series.may_overflow:
            doubles = self._sum
        else:
            doubles = nearest_doubles(_decimal_sum(series, self._spans, 0, self._count > 0))
        return np.asarray(doubles.fill_null(0).to_numpy(zero_copy_only=False)).astype(float)

    @cached_property
    def _scale(self) -> int | None:
        """The digits after the point of a decimal."""
        column = self._series.column
        is_decimal = column is not None and pa.types.is_decimal(column.type)
        return column.type.scale if is_decimal and column is not None else None

    @property
    def _unit(self) -> float:
        """How many of the series' numbers make 1."""
        return 10.0 ** (self._scale or 0)


def _decimal_sum(series: Series, spans: Sequence[Span], scale: int, valid: Mask) -> pa.Array:
    """In two halves of 32 bits, whose sums fit into 64 bits for any number of rows in memory."""
    dtype = pa.decimal128(MOST_DIGITS, scale)
    if not series.may_overflow:
        total = _reduced(np.add, series.or_zero, spans)
        return decimals_of(total, total >> 63, dtype, valid)
    lower = _reduced(np.add, series.or_zero & _HALF, spans)
    upper = _reduced(np.add, series.or_zero >> 32, spans) + (lower >> 32)
    return decimals_of((upper << 32) | (lower & _HALF), upper >> 32, dtype, valid)


def _sum(series: Series, spans: Sequence[Span]) -> Values:
    total = _reduced(np.add, series.or_zero, spans)
    if total.dtype.kind != "f" and series.may_overflow:
        rough = _reduced(np.add, series.or_zero.astype(float), spans)
        # A sum that wrapped around is off by a multiple of 2^64; rounding is off by far less.
        if (np.abs(rough - total) >= 2**63).any():
            raise NumberOverflow("A sum")
    return total


def _reduced(ufunc: np.ufunc, filled: Values, spans: Sequence[Span]) -> Values:
    """`filled` has one element more than there are rows. Empty ranges give 0."""
    low, high = spans[0]
    whole, some = _ranges(ufunc, filled, low, high), high > low
    for low, high in spans[1:]:
        part, here = _ranges(ufunc, filled, low, high), high > low
        whole = np.where(here, np.where(some, ufunc(whole, part), part), whole)
        some = some | here
    return whole


def _ranges(ufunc: np.ufunc, filled: Values, low: Ints, high: Ints) -> Values:
    if not len(low):
        return filled[:0]
    # `reduceat` reduces from each bound to the next, and gives one element where the next is not
    # after it; every second result is a range, and the others cost one pass over the rows at most.
    bounds = np.empty(2 * len(low), np.int64)
    bounds[::2], bounds[1::2] = low, high
    return np.where(high > low, ufunc.reduceat(filled, bounds)[::2], 0)


def _stddev(series: Series, spans: Sequence[Span], count: Ints) -> Values:
    """Of the sample (n - 1), in two passes: the mean first, then the deviations from it.

    Both as distances from one of the values: large whole numbers that are near each other are told
    apart by digits that a double does not have.
    """
    places = np.clip(_first(series, spans), 0, max(len(series.valid) - 1, 0))
    centre = series.numbers[places] if len(series.valid) else np.zeros(len(count))
    mean = _of_distances(series, spans, centre, lambda away, _: away) / np.maximum(count, 1)
    squares = _of_distances(
        series, spans, centre, lambda away, part: (away - np.repeat(mean[part[0]], part[1])) ** 2
    )
    return np.sqrt(squares / np.maximum(count - 1, 1))


def _of_distances(
    series: Series,
    spans: Sequence[Span],
    centre: Values,
    of: Callable[[Values, tuple[slice, Ints]], Values],
) -> Values:
    """The sums of a function of the distances from each spine row's `centre`."""
    total = np.zeros(len(centre))
    for low, high in spans:
        for part, rows, ends in expanded(low, high):
            sizes = np.diff(ends, prepend=0)
            numbers, centres = series.numbers[rows], np.repeat(centre[part], sizes)
            away = numbers - centres
            if away.dtype.kind == "i":
                # A distance that wrapped around has the wrong sign; a double is near enough to it.
                wrapped = (away < 0) != (numbers < centres)
                away = np.where(wrapped, numbers.astype(float) - centres, away.astype(float))
            values = np.where(series.valid[rows], of(away, (part, sizes)), 0.0)
            total[part] += _ranges(np.add, np.append(values, 0.0), ends - sizes, ends)
    return total


def _first(series: Series, spans: Sequence[Span]) -> Ints:
    """The first row that counts; any place where none does."""
    found = np.full(len(spans[0][0]), len(series.valid))
    for low, high in reversed(spans):
        first = series.next_valid[low]
        found = np.where(first < high, first, found)
    return found


def _last(series: Series, spans: Sequence[Span]) -> Ints:
    """The last row that counts; any place where none does."""
    found = np.full(len(spans[0][0]), -1)
    for low, high in spans:
        last = series.last_valid[high]
        found = np.where(last >= low, last, found)
    return found


def _count_distinct(series: Series, low: Ints, high: Ints) -> Ints:
    """Rows whose value did not occur earlier in the range."""
    distinct = np.zeros(len(low), np.int64)
    for part, rows, ends in expanded(low, high):
        sizes = np.diff(ends, prepend=0)
        new = series.valid[rows] & (series.previous[rows] < np.repeat(low[part], sizes))
        filled = np.append(new.astype(np.int64), 0)
        distinct[part] = _ranges(np.add, filled, ends - sizes, ends)
    return distinct


def _picked(series: Series, rows: Ints, count: Ints) -> pa.Array:
    assert series.column is not None  # noqa: S101 - only counts go without a column
    return series.column.take(pa.array(rows, mask=count == 0)).combine_chunks()


def _typed(series: Series, result: Values, count: Ints) -> pa.Array:
    assert series.column is not None  # noqa: S101 - only counts go without a column
    if pa.types.is_decimal(series.column.type):
        return decimals_of(result, result >> 63, series.column.type, count > 0)
    return pa.array(result, mask=count == 0).cast(series.column.type)
