"""Aggregates over windows `(t - w, t]` of sorted rows, for all spine rows at once."""

from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.history import History, Ints
from konveyer.feature_store.kernel.search import rows_until

_EXPANDED_ROWS = 4_000_000
Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Windows:
    """The row ranges of one window length, shared by every aggregate over it.

    `history` must have its rows in order. A row that became known after the spine row's time is
    left out when `as_known` and the history records it.
    """

    def __init__(
        self, history: History, codes: Ints, at_us: Ints, over_us: int, *, as_known: bool
    ) -> None:
        start, end = rows_until(history, codes, at_us)
        low = rows_until(history, codes, at_us - over_us)[1]
        self._low, self._high = np.where(end > start, low, end), end
        self._rows = len(history.event_us)
        self._known = (
            (history.created_us, at_us) if as_known and history.created_us is not None else None
        )

    def aggregate(
        self, function: AggregationFunction, values: pa.ChunkedArray | None, counted: Mask | None
    ) -> pa.Array:
        """One aggregate per spine row.

        `values` is the column (None counts rows), `counted` marks the rows that pass the filter.
        Whole numbers are summed exactly in 64 bits; floats are summed row after row, and a NaN is
        a value that makes its window's sum, mean, min and max NaN. Nulls are skipped.
        """
        numbers, valid = _numbers(values, self._rows)
        if counted is not None:
            valid = valid & counted
        if self._known is not None:
            return self._expanded(function, numbers, valid, values)
        # Sorted by start, the ranges between windows cost at most one pass over the rows.
        order = np.argsort(self._low, kind="stable")
        low, high = self._low[order], self._high[order]
        counts = np.concatenate([np.zeros(1, np.int64), np.cumsum(valid)])
        count = counts[high] - counts[low]
        result = _finish(function, numbers, valid, low, high, count)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return _arrow(function, result[back], count[back], values)

    def _expanded(
        self, function: AggregationFunction, numbers: Values, valid: Mask, values: Any
    ) -> pa.Array:
        """With created times every (spine row, history row) pair decides for itself.

        Pairs are made for a few spine rows at a time, so memory stays bounded.
        """
        assert self._known is not None  # noqa: S101 - the caller looked
        created_us, at_us = self._known
        sizes = self._high - self._low
        results, counts = [], []
        cuts = np.searchsorted(
            np.cumsum(sizes), np.arange(_EXPANDED_ROWS, sizes.sum(), _EXPANDED_ROWS)
        )
        for part in np.split(np.arange(len(sizes)), np.unique(cuts)):
            size = sizes[part]
            ends = np.cumsum(size)
            within = np.arange(size.sum()) - np.repeat(ends - size, size)
            row = np.repeat(self._low[part], size) + within
            known = valid[row] & (created_us[row] <= np.repeat(at_us[part], size))
            sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(known)])
            count = sums[ends] - sums[ends - size]
            results.append(_finish(function, numbers[row], known, ends - size, ends, count))
            counts.append(count)
        return _arrow(function, np.concatenate(results), np.concatenate(counts), values)


def _numbers(values: pa.ChunkedArray | None, rows: int) -> tuple[Values, Mask]:
    if values is None:
        return np.zeros(rows, np.int64), np.ones(rows, bool)
    valid = np.asarray(values.is_valid().to_numpy())
    if pa.types.is_floating(values.type):
        numbers = values.fill_null(0.0).to_numpy()
    else:
        numbers = values.cast(pa.int64()).fill_null(0).to_numpy()
    return np.asarray(numbers), valid


def _finish(
    function: AggregationFunction, numbers: Values, valid: Mask, low: Ints, high: Ints, count: Ints
) -> Values:
    """Reduce `numbers[low:high]` of each window over its valid rows; `low` rises."""
    match function:
        case "count":
            return count
        case "sum":
            return _reduce(np.add, numbers, valid, low, high, numbers.dtype.type(0))
        case "mean":
            total = _reduce(np.add, numbers, valid, low, high, numbers.dtype.type(0))
            return total / np.maximum(count, 1)
        case "min":
            return _reduce(np.minimum, numbers, valid, low, high, _limit(numbers, highest=True))
        case "max":
            return _reduce(np.maximum, numbers, valid, low, high, _limit(numbers, highest=False))
        case _:
            assert_never(function)


def _reduce(
    ufunc: np.ufunc, numbers: Values, valid: Mask, low: Ints, high: Ints, nothing: Any
) -> Values:
    filled = np.append(np.where(valid, numbers, nothing), nothing)
    if not len(low):
        return filled[:0]
    bounds = np.column_stack([low, high]).ravel()
    # reduceat gives a range's first element when its end is not after its start.
    return np.where(high > low, ufunc.reduceat(filled, bounds)[::2], nothing)


def _limit(numbers: Values, *, highest: bool) -> Any:
    if numbers.dtype.kind == "f":
        return np.inf if highest else -np.inf
    limits = np.iinfo(numbers.dtype)
    return limits.max if highest else limits.min


def _arrow(
    function: AggregationFunction, result: Values, count: Ints, values: pa.ChunkedArray | None
) -> pa.Array:
    if function == "count":
        return pa.array(count, pa.int64())
    array = pa.array(result, mask=count == 0)
    if function in ("min", "max") and values is not None:
        return array.cast(values.type)
    return array
