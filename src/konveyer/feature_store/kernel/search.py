"""Searching inside each entity's rows, for all spine rows at once."""

import numpy as np

from konveyer.feature_store.kernel.codes import LARGEST, Ints
from konveyer.feature_store.kernel.history import History


def _places(history: History, codes: Ints, at_us: Ints) -> Ints:
    """Where moments stand among the `places` of the history's rows."""
    return codes * history.span_us + np.clip(at_us - history.first_us, -1, history.span_us - 2)


def rows_until(history: History, codes: Ints, at_us: Ints) -> tuple[Ints, Ints]:
    """For each spine row the range `start:end` of its entity's rows with event time <= `at_us`.

    An unknown entity (code -1) gets the empty range 0:0. O(spine rows x log(history rows)), and
    several times faster for a sorted spine.
    """
    known = codes >= 0
    safe = np.where(known, codes, 0)
    if len(history.starts) < 2:
        nothing = np.zeros(len(codes), np.int64)
        return nothing, nothing
    start = np.where(known, history.starts[safe], 0)
    if history.places is None:
        return start, _halving(history, start, np.where(known, history.starts[safe + 1], 0), at_us)
    end = np.searchsorted(history.places, _places(history, safe, at_us), side="right")
    return start, np.where(known, end, 0)


def settled_until(history: History, codes: Ints, at_us: Ints) -> Ints:
    """For each spine row a place up to which all rows of its entity became known by `at_us`.

    It is the first row that became known later, or one before it. The history records when its rows
    became known, and has rows.
    """
    created_us, starts = history.created_us, history.starts
    assert created_us is not None  # noqa: S101 - the caller looked
    first_us = int(created_us.min())
    span_us = int(created_us.max()) - first_us + 2
    if span_us * len(starts) >= LARGEST:
        return starts[np.maximum(codes, 0)]
    dense = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    # The latest so far of each entity: one number that rises through all rows, as `places` does.
    latest = np.maximum.accumulate(dense * span_us + (created_us - first_us))
    moments = codes * span_us + np.clip(at_us - first_us, -1, span_us - 2)
    return np.searchsorted(latest, moments, side="right")


def _halving(history: History, low: Ints, high: Ints, at_us: Ints) -> Ints:
    """All spine rows halve their range in step: for times too far apart for one number."""
    while True:
        open_ = low < high
        if not open_.any():
            return low
        middle = (low + high) >> 1
        earlier = open_ & (history.event_us[np.where(open_, middle, 0)] <= at_us)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)


def last_at_most(values: Ints, start: Ints, end: Ints, limit: Ints) -> Ints:
    """For each range `start:end` the last place whose value is at most `limit`, or -1.

    Climbs a tree of minima over aligned blocks of 1, 2, 4 ... values and skips each block whose
    minimum is above the limit: O(ranges x log(values)), however many values must be passed over.
    """
    levels = [values]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(np.minimum(below[: len(below) // 2 * 2 : 2], below[1::2]))
    first = np.cumsum([0, *(len(level) for level in levels)])
    minima = np.concatenate(levels)
    found = np.full(len(start), -1, np.int64)
    left = np.flatnonzero(start < end)  # the ranges that are not decided yet
    place, level = end[left], np.zeros(len(left), np.int64)
    while len(left):
        lowest = minima[first[level] + (place >> level) - 1]
        hit = lowest <= limit[left]
        done = hit & (level == 0)
        found[left[done]] = place[done] - 1
        place = np.where(hit, place, place - (np.int64(1) << level))
        level = np.where(hit, level - 1, level + 1)
        # A block is aligned, as large as that allows, and inside the range.
        while True:
            size = np.int64(1) << np.maximum(level, 0)
            large = (level > 0) & ((place & (size - 1) != 0) | (place - size < start[left]))
            if not large.any():
                break
            level = np.where(large, level - 1, level)
        kept = ~done & (place > start[left])
        left, place, level = left[kept], place[kept], level[kept]
    return found
