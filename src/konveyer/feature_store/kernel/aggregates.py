"""The aggregates: each reduces ranges `low:high` of a series, all ranges at once; `low` rises."""

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


class Ranges:
    """A series in ranges `low:high` of its rows, one for each spine row; `low` rises."""

    def __init__(self, series: Series, low: Ints, high: Ints) -> None:
        self._series, self._low, self._high = series, low, high

    def aggregate(self, function: AggregationFunction) -> pa.Array:
        """One aggregate per range. A range without a row that counts gives 0 for counts, else null.

        Whole numbers are summed exactly in 64 bits, and decimals of up to 18 digits in 128; wider
        ones are counted and picked only. A NaN is a value that makes its range's sum, mean, min,
        max and stddev NaN.
        """
        series, low, high, count = self._series, self._low, self._high, self._count
        match function:
            case "count":
                return pa.array(count)
            case "sum":
                return self._sum
            case "mean":
                return pa.array(self._sum_as_doubles / np.maximum(count, 1), mask=count == 0)
            case "min":
                return _typed(series, _ranges(np.minimum, series.or_highest, low, high), count)
            case "max":
                return _typed(series, _ranges(np.maximum, series.or_lowest, low, high), count)
            case "stddev":
                return pa.array(_stddev(series, low, high, count) / self._unit, mask=count < 2)
            case "first":
                return _picked(series, series.next_valid[low], count)
            case "last":
                newest = series.last_valid[np.maximum(high, 1) - 1] if len(series.valid) else low
                return _picked(series, newest, count)
            case "count_distinct":
                return pa.array(_count_distinct(series, low, high))
            case _:
                assert_never(function)

    @cached_property
    def _count(self) -> Ints:
        return self._series.counts(self._low, self._high)

    @cached_property
    def _sum(self) -> pa.Array:
        series, low, high = self._series, self._low, self._high
        if self._scale is None:
            return pa.array(_sum(series, low, high), mask=self._count == 0)
        return _decimal_sum(series, low, high, self._scale, self._count > 0)

    @cached_property
    def _sum_as_doubles(self) -> Values:
        doubles = self._sum if self._scale is None else nearest_doubles(self._sum)
        return np.asarray(doubles.fill_null(0).to_numpy(zero_copy_only=False))

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


def _decimal_sum(series: Series, low: Ints, high: Ints, scale: int, valid: Mask) -> pa.Array:
    """In two halves of 32 bits, whose sums fit into 64 bits for any number of rows in memory."""
    dtype = pa.decimal128(MOST_DIGITS, scale)
    if not series.may_overflow:
        total = _ranges(np.add, series.or_zero, low, high)
        return decimals_of(total, total >> 63, dtype, valid)
    lower = _ranges(np.add, series.or_zero & _HALF, low, high)
    upper = _ranges(np.add, series.or_zero >> 32, low, high) + (lower >> 32)
    return decimals_of((upper << 32) | (lower & _HALF), upper >> 32, dtype, valid)


def _sum(series: Series, low: Ints, high: Ints) -> Values:
    total = _ranges(np.add, series.or_zero, low, high)
    if total.dtype.kind != "f" and series.may_overflow:
        rough = _ranges(np.add, series.or_zero.astype(float), low, high)
        # A sum that wrapped around is off by a multiple of 2^64; rounding is off by far less.
        if (np.abs(rough - total) >= 2**63).any():
            raise NumberOverflow("A sum")
    return total


def _ranges(ufunc: np.ufunc, filled: Values, low: Ints, high: Ints) -> Values:
    """`filled` has one element more than there are rows. An empty range gives 0."""
    if not len(low):
        return filled[:0]
    # `reduceat` reduces from each bound to the next, and gives one element where the next is not
    # after it; every second result is a range, and the others cost one pass over the rows at most.
    bounds = np.empty(2 * len(low), np.int64)
    bounds[::2], bounds[1::2] = low, high
    return np.where(high > low, ufunc.reduceat(filled, bounds)[::2], 0)


def _stddev(series: Series, low: Ints, high: Ints, count: Ints) -> Values:
    """Of the sample (n - 1), in two passes: deviations from the range's own mean."""
    mean = _ranges(np.add, series.or_zero.astype(float), low, high) / np.maximum(count, 1)
    squares = np.zeros(len(low))
    for part, rows, ends in expanded(low, high):
        sizes = np.diff(ends, prepend=0)
        away = series.numbers[rows] - np.repeat(mean[part], sizes)
        filled = np.append(np.where(series.valid[rows], away * away, 0.0), 0.0)
        squares[part] = _ranges(np.add, filled, ends - sizes, ends)
    return np.sqrt(squares / np.maximum(count - 1, 1))


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
