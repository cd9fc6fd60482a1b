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
        self._spans: dict[int | None, Span] = {}
        for over_us in set(lengths):
            low = start if over_us is None else rows_until(history, codes, at_us - over_us)[1]
            # An empty range stands where the one before it began, so that `low` rises.
            low = np.where(codes >= 0, low, np.maximum.accumulate(low))
            self._spans[over_us] = low, np.where(codes >= 0, end, low)
        self._unsettled = None
        if as_known and history.created_us is not None and len(history.event_us):
            lows, highs = zip(*self._spans.values(), strict=True)
            longest = np.minimum.reduce(lows), highs[0]
            settled = np.clip(settled_until(history, codes, at_us), *longest)
            self._unsettled = Unsettled(history.created_us, at_us, settled, highs[0])

    def over(self, over_us: int | None, series: Series) -> Ranges | KnownRanges:
        """The series in each row's window of that length."""
        span = self._spans[over_us]
        if self._unsettled is None:
            return Ranges(series, span)
        return KnownRanges(series, span, self._unsettled)
