"""Windows `(t - over, t]` of each spine row, as ranges of a history's rows."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.aggregates import Ranges
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.history import History
from konveyer.feature_store.kernel.search import rows_until
from konveyer.feature_store.kernel.series import Series, expanded


class Windows:
    """The windows of spine rows over one history, which all its aggregates share.

    The spine rows must be sorted by (entity, time). A row that became known after the spine row's
    time is left out when `as_known` and the history records it.
    """

    def __init__(self, history: History, codes: Ints, at_us: Ints, *, as_known: bool) -> None:
        self._history, self._codes, self._at_us = history, codes, at_us
        self._start, self._end = rows_until(history, codes, at_us)
        self._created_us = history.created_us if as_known else None
        self._bounds: dict[int | None, tuple[Ints, Ints]] = {}

    def over(self, over_us: int | None, series: Series) -> "Ranges | KnownRanges":
        """The series in each row's window; None reaches back to the entity's first row."""
        if over_us not in self._bounds:
            self._bounds[over_us] = self._bounds_of(over_us)
        low, high = self._bounds[over_us]
        if self._created_us is None:
            return Ranges(series, low, high)
        return KnownRanges(series, low, high, self._at_us, self._created_us)

    def _bounds_of(self, over_us: int | None) -> tuple[Ints, Ints]:
        start = self._start
        if over_us is not None:
            start = rows_until(self._history, self._codes, self._at_us - over_us)[1]
        # An empty range stands where the one before it began, so that `low` rises.
        low = np.where(self._codes >= 0, start, np.maximum.accumulate(start))
        return low, np.where(self._codes >= 0, self._end, low)


class KnownRanges:
    """Ranges of which each (spine row, history row) pair decides whether it was known."""

    def __init__(
        self, series: Series, low: Ints, high: Ints, at_us: Ints, created_us: Ints
    ) -> None:
        self._series, self._low, self._high = series, low, high
        self._at_us, self._created_us = at_us, created_us

    def aggregate(self, function: AggregationFunction) -> pa.Array:
        """See `Ranges.aggregate`."""
        if not len(self._low):
            return Ranges(self._series, self._low, self._high).aggregate(function)
        return pa.concat_arrays([part.aggregate(function) for part in self._parts()])

    def _parts(self) -> Iterator[Ranges]:
        for part, rows, ends in expanded(self._low, self._high):
            sizes = np.diff(ends, prepend=0)
            known = self._created_us[rows] <= np.repeat(self._at_us[part], sizes)
            yield Ranges(self._series.taken(rows, known), ends - sizes, ends)
