"""A column of a history under one filter, prepared once for every window over it."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.core.decimals import words_of
from konveyer.feature_store.kernel.codes import Ints, codes_of

EXPANDED_ROWS = 4_000_000
Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Series:
    """`valid` marks the rows that count: not null, and passing the filter.

    `column` is None when rows are counted. `numbers` are its values as an array (instants as
    microseconds, false and null as 0, decimals of up to 18 digits without their point); only number
    and instant columns have them.
    """

    def __init__(self, column: pa.ChunkedArray | None, valid: Mask) -> None:
        self.column, self.valid = column, valid

    def taken(self, rows: Ints, known: Mask) -> "Series":
        """The same column at `rows`, of which only those that are `known` count."""
        column = None if self.column is None else self.column.take(pa.array(rows))
        return Series(column, self.valid[rows] & known)

    def followed_by(self, other: "Series") -> "Series":
        """The rows of this one, then those of `other`, which has the same column."""
        column = None
        if self.column is not None and other.column is not None:
            column = pa.chunked_array([*self.column.chunks, *other.column.chunks])
        return Series(column, np.concatenate([self.valid, other.valid]))

    def counts(self, low: Ints, high: Ints) -> Ints:
        if self._all_valid:
            return high - low
        return self._counted[high] - self._counted[low]

    @cached_property
    def or_zero(self) -> Values:
        """The numbers with 0 where a row does not count, and one element more."""
        return self._filled(0)

    @cached_property
    def or_lowest(self) -> Values:
        """As `or_zero`, with the lowest of the type where a row does not count."""
        kind = self.numbers.dtype
        return self._filled(-np.inf if kind.kind == "f" else np.iinfo(kind).min)

    @cached_property
    def or_highest(self) -> Values:
        """As `or_zero`, with the highest of the type where a row does not count."""
        kind = self.numbers.dtype
        return self._filled(np.inf if kind.kind == "f" else np.iinfo(kind).max)

    @cached_property
    def may_overflow(self) -> bool:
        """Whether a sum of whole numbers may leave 64 bits."""
        # Half of the room: the sum of doubles is rounded, down too.
        return bool(np.abs(self.numbers.astype(float)).sum() >= 2**62)

    @cached_property
    def numbers(self) -> Values:
        assert self.column is not None  # noqa: S101 - only counts go without a column
        if pa.types.is_floating(self.column.type):
            return np.asarray(self.column.fill_null(0.0).to_numpy())
        if pa.types.is_decimal(self.column.type):
            return words_of(self.column)[0]
        return np.asarray(self.column.cast(pa.int64()).fill_null(0).to_numpy())

    @cached_property
    def next_valid(self) -> Ints:
        """For each row, itself included, the first one that counts; the row count when none."""
        place = np.where(self.valid, np.arange(len(self.valid)), len(self.valid))
        return np.append(np.minimum.accumulate(place[::-1])[::-1], len(self.valid))

    @cached_property
    def last_valid(self) -> Ints:
        """Before each row, and before the end, the last one that counts; -1 when none."""
        place = np.where(self.valid, np.arange(len(self.valid)), -1)
        return np.concatenate([np.full(1, -1), np.maximum.accumulate(place)])

    @cached_property
    def previous(self) -> Ints:
        """For each row that counts the one before it with the same value; -1 when none."""
        assert self.column is not None  # noqa: S101 - only counts go without a column
        codes = codes_of(self.column)
        counted = np.flatnonzero(self.valid)
        order = counted[np.argsort(codes[counted], kind="stable")]
        same = np.diff(codes[order], prepend=-1) == 0
        previous = np.full(len(codes), -1, np.int64)
        previous[order[same]] = order[np.flatnonzero(same) - 1]
        return previous

    def _filled(self, nothing: Any) -> Values:
        if self._all_valid:
            return self._padded
        filled = self._padded.copy()
        filled[:-1][~self.valid] = nothing
        filled[-1] = nothing
        return filled

    @cached_property
    def _padded(self) -> Values:
        """The numbers, and one 0 that belongs to no row."""
        padded = np.zeros(len(self.valid) + 1, self.numbers.dtype)
        padded[:-1] = self.numbers
        return padded

    @cached_property
    def _all_valid(self) -> bool:
        return bool(self.valid.all())

    @cached_property
    def _counted(self) -> Ints:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.valid, dtype=np.int64)])


def series_of(column: pa.ChunkedArray | None, passes: Mask | None, rows: int) -> Series:
    """`passes` is the filter, None for none; `rows` is the length of the history."""
    valid = np.ones(rows, bool) if column is None else np.asarray(column.is_valid())
    return Series(column, valid if passes is None else valid & passes)


def expanded(low: Ints, high: Ints) -> Iterator[tuple[slice, Ints, Ints]]:
    """Every row of every range, for a few ranges at a time, so that memory stays bounded.

    Yields which ranges, their rows one range after another, and where each range ends in them.
    """
    sizes = high - low
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + EXPANDED_ROWS, side="right")), first + 1)
        size = sizes[first:last]
        end = np.cumsum(size)
        within = np.arange(size.sum()) - np.repeat(end - size, size)
        yield slice(first, last), np.repeat(low[first:last], size) + within, end
        first = last
