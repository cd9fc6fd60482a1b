"""Windows `(t - over, t]` of each spine row, as ranges of a history's rows."""

from typing import Any

import numpy as np
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.aggregates import aggregate
from konveyer.feature_store.kernel.history import History, Ints
from konveyer.feature_store.kernel.search import rows_until
from konveyer.feature_store.kernel.series import Series, expanded


class Windows:
    """The row ranges of one window length, shared by every aggregate over it.

    The spine rows must be sorted by (code, time). A window without a length reaches back to the
    entity's first row. A row that became known after the spine row's time is left out when
    `as_known` and the history records it.
    """

    def __init__(
        self, history: History, codes: Ints, at_us: Ints, over_us: int | None, *, as_known: bool
    ) -> None:
        start, self._high = rows_until(history, codes, at_us)
        if over_us is not None:
            start = rows_until(history, codes, at_us - over_us)[1]
        self._low = np.where(codes >= 0, start, 0)
        self._at_us = at_us
        self._created_us = history.created_us if as_known else None

    def aggregate(self, function: AggregationFunction, series: Series) -> Any:
        """One aggregate per spine row, as an Arrow array."""
        if self._created_us is None:
            return aggregate(function, series, self._low, self._high)
        return self._of_known(function, series, self._created_us)

    def _of_known(self, function: AggregationFunction, series: Series, created_us: Ints) -> Any:
        """Every (spine row, history row) pair decides for itself whether it was known."""
        if not len(self._low):
            return aggregate(function, series, self._low, self._high)
        parts = []
        for part, rows, ends in expanded(self._low, self._high):
            sizes = np.diff(ends, prepend=0)
            known = created_us[rows] <= np.repeat(self._at_us[part], sizes)
            parts.append(aggregate(function, series.taken(rows, known), ends - sizes, ends))
        return pa.concat_arrays(parts)
