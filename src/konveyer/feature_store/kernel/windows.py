"""Windows `(t - over, t]` of each spine row, as ranges of a history's rows."""

from collections.abc import Iterable

import numpy as np

from konveyer.feature_store.kernel.aggregates import Ranges, Span
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.history import History
from konveyer.feature_store.kernel.known import KnownRanges, Unsettled
from konveyer.feature_store.kernel.search import rows_until, settled_until
from konveyer.feature_store.kernel.series import Series


class Windows:
    """The windows of spine rows over one history, which all their aggregates share.

    `lengths` are those that will be asked for; None reaches back to the entity's first row. The
    spine rows must be sorted by (entity, time). A row that became known after the spine row's time
    is left out when `as_known` and the history records it.
    """

    def __init__(
        self,
        history: History,
        codes: Ints,
        at_us: Ints,
        lengths: Iterable[int | None],
        *,
        as_known: bool,
    ) -> None:
        start, end = rows_until(history, codes, at_us)
        # Nothing of nobody stands where the rows before it end, so that `low` rises.
        end = np.where(codes >= 0, end, np.maximum.accumulate(end))
        self._spans: dict[int | None, Span] = {}
        for over_us in set(lengths):
            low = start if over_us is None else rows_until(history, codes, at_us - over_us)[1]
            self._spans[over_us] = np.where(codes >= 0, low, end), end
        self._unsettled = None
        if as_known and history.created_us is not None and len(history.event_us):
            lowest = np.minimum.reduce([low for low, _ in self._spans.values()])
            settled = np.clip(settled_until(history, codes, at_us), lowest, end)
            self._unsettled = Unsettled(history.created_us, at_us, settled, end)

    def over(self, over_us: int | None, series: Series) -> Ranges | KnownRanges:
        """The series in each row's window of that length."""
        span = self._spans[over_us]
        if self._unsettled is None:
            return Ranges(series, span)
        return KnownRanges(series, span, self._unsettled)
