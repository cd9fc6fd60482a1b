"""Binary search inside each entity's rows, for all spine rows at once."""

import numpy as np

from konveyer.feature_store.kernel.history import History, Ints


def rows_until(history: History, codes: Ints, at_us: Ints) -> tuple[Ints, Ints]:
    """For each spine row the range `start:end` of its entity's rows with event time <= `at_us`.

    An unknown entity (code -1) gets an empty range. All spine rows halve their range in step, so
    the cost is O(rows of the spine x log(rows of the largest entity)).
    """
    known = codes >= 0
    safe = np.where(known, codes, 0)
    if len(history.starts) < 2:
        nothing = np.zeros(len(codes), np.int64)
        return nothing, nothing
    start = np.where(known, history.starts[safe], 0)
    low, high = start.copy(), np.where(known, history.starts[safe + 1], 0)
    while True:
        open_ = low < high
        if not open_.any():
            return start, low
        middle = (low + high) >> 1
        earlier = open_ & (history.event_us[np.where(open_, middle, 0)] <= at_us)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
