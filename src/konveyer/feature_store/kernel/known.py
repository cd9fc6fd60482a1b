"""Windows over a history that records when its rows became known.

What a spine row may see of its window is all of it up to some row, and after that what was known
at its time. Late rows are few, so that only the last rows of a window are looked at one by one.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.aggregates import Ranges, Span
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.series import EXPANDED_ROWS, Mask, Series, expanded

_Part = tuple[slice, Ints, Ints, Mask]


class Unsettled:
    """The rows `settled:end` of each spine row, of which each decides whether it was known."""

    def __init__(self, created_us: Ints, at_us: Ints, settled: Ints, end: Ints) -> None:
        self.settled = settled
        self._created_us, self._at_us, self._end = created_us, at_us, end
        few = int((end - settled).sum()) <= EXPANDED_ROWS
        self._parts = list(self.of(settled, end)) if few else None
        self._extended: dict[Series, Series] = {}

    def of(self, low: Ints, high: Ints) -> Iterator[_Part]:
        """Some spine rows, all rows in their ranges, where each range ends in them; which are
        known."""
        for part, rows, ends in expanded(low, high):
            at_us = np.repeat(self._at_us[part], np.diff(ends, prepend=0))
            yield part, rows, ends, self._created_us[rows] <= at_us

    def extended(self, series: Series) -> Iterator[tuple[slice, Ints, Series]]:
        """Some spine rows, where their unsettled rows end, and the series followed by those."""
        if self._parts is None:
            for part, rows, ends, known in self.of(self.settled, self._end):
                yield part, ends, series.followed_by(series.taken(rows, known))
            return
        for part, rows, ends, known in self._parts:
            if series not in self._extended:
                self._extended[series] = series.followed_by(series.taken(rows, known))
            yield part, ends, self._extended[series]


class KnownRanges:
    """A series in one span, without the rows that were not known at the spine row's time."""

    def __init__(self, series: Series, span: Span, unsettled: Unsettled) -> None:
        self._series, self._span, self._unsettled = series, span, unsettled

    def aggregate(self, function: AggregationFunction) -> pa.Array:
        """See `Ranges.aggregate`."""
        if not len(self._unsettled.settled):
            return Ranges(self._series, self._span).aggregate(function)
        # Whether a value occurred before depends on what was known of all of the window.
        whole = function == "count_distinct"
        parts = self._looked_at() if whole else self._settled_first()
        return pa.concat_arrays([part.aggregate(function) for part in parts])

    def _settled_first(self) -> Iterator[Ranges]:
        low, _ = self._span
        rows = len(self._series.valid)
        for part, ends, series in self._unsettled.extended(self._series):
            settled = self._unsettled.settled[part]
            end = rows + ends
            start = rows + np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            recent = start + np.maximum(low[part] - settled, 0), end
            yield Ranges(series, (low[part], np.maximum(low[part], settled)), recent)

    def _looked_at(self) -> Iterator[Ranges]:
        for _, rows, ends, known in self._unsettled.of(*self._span):
            start = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            yield Ranges(self._series.taken(rows, known), (start, ends))
