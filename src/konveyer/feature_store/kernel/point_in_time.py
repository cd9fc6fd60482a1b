"""The point-in-time join: which row of an entity was the newest at a moment."""

import numpy as np

from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.history import History
from konveyer.feature_store.kernel.search import last_at_most, rows_until


def latest(
    history: History,
    codes: Ints,
    at_us: Ints,
    *,
    oldest_us: Ints | None = None,
    as_known: bool = True,
) -> Ints:
    """For each spine row the index of its newest visible history row, or -1.

    Visible means `oldest_us <= event time <= at_us`, and `created time <= at_us` too when
    `as_known` and the history records it. The winner has the greatest event time, then the
    greatest created time, then the last place.
    """
    start, end = rows_until(history, codes, at_us)
    if as_known and history.created_us is not None:
        winner = last_at_most(history.created_us, start, end, at_us)
    else:
        winner = np.where(end > start, end - 1, -1)
    if oldest_us is not None and len(history.event_us):
        fresh = history.event_us[np.maximum(winner, 0)] >= oldest_us
        winner = np.where(fresh, winner, -1)
    return winner
