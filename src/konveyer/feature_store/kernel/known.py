"""Windows over a history that records when its rows became known.

What a spine row may see of its window is all of it up to some row, and after that what was known
at its time. Late rows are few, so that only the last rows of a window are looked at one by one.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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

    def of(self, low: Ints, high: Ints, spine: Ints | None = None) -> Iterator[_Part]:
        """Some spine rows, all rows in their ranges, where each range ends in them; which are
        known. `spine` are the spine rows that the ranges are of, None for all of them.
        """
        asked_us = self._at_us if spine is None else self._at_us[spine]
        for part, rows, ends in expanded(low, high):
            at_us = np.repeat(asked_us[part], np.diff(ends, prepend=0))
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
        if self._adds_fractions(function):
            return pa.concat_arrays(list(self._added_in_order(function)))
        # Whether a value occurred before depends on what was known of all of the window.
        whole = function == "count_distinct"
        parts = self._looked_at() if whole else self._settled_first()
        return pa.concat_arrays([part.aggregate(function) for part in parts])

    def _adds_fractions(self, function: AggregationFunction) -> bool:
        """Whether the last digits depend on which rows are added first."""
        column = self._series.column
        is_float = column is not None and pa.types.is_floating(column.type)
        return function == "stddev" or (is_float and function in ("sum", "mean"))

    def _settled_first(self) -> Iterator[Ranges]:
        low, _ = self._span
        rows = len(self._series.valid)
        for part, ends, series in self._unsettled.extended(self._series):
            settled = self._unsettled.settled[part]
            end = rows + ends
            start = rows + np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            recent = start + np.maximum(low[part] - settled, 0), end
            yield Ranges(series, (low[part], np.maximum(low[part], settled)), recent)

    def _added_in_order(self, function: AggregationFunction) -> Iterator[pa.Array]:
        """Added as they would have been when nothing else was there yet: bit for bit the same."""
        low, end = self._span
        first = np.maximum(low, self._unsettled.settled)
        for part, _, ends, known in self._unsettled.of(first, end):
            starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            so_far = np.concatenate([np.zeros(1, np.int64), np.cumsum(known, dtype=np.int64)])
            count = so_far[ends] - so_far[starts]
            # What is known comes before what is not, and is one range with all that is settled.
            together = so_far[starts + count] - so_far[starts] == count
            high = np.where(together, first[part] + count, low[part])
            found = Ranges(self._series, (low[part], high)).aggregate(function)
            scattered = np.flatnonzero(~together) + (part.start or 0)
            if len(scattered):
                picked = pa.concat_arrays(list(self._picked_out(function, scattered)))
                found = pc.replace_with_mask(found, pa.array(~together), picked)
            yield found

    def _picked_out(self, function: AggregationFunction, spine: Ints) -> Iterator[pa.Array]:
        """Of spine rows between whose known rows there are others."""
        low, end = (bound[spine] for bound in self._span)
        for _, rows, ends, known in self._unsettled.of(low, end, spine):
            stops = np.cumsum(known, dtype=np.int64)[ends - 1]
            starts = np.concatenate([np.zeros(1, np.int64), stops[:-1]])
            kept = rows[known]
            series = self._series.taken(kept, np.ones(len(kept), bool))
            yield Ranges(series, (starts, stops)).aggregate(function)

    def _looked_at(self) -> Iterator[Ranges]:
        for _, rows, ends, known in self._unsettled.of(*self._span):
            start = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
            yield Ranges(self._series.taken(rows, known), (start, ends))
