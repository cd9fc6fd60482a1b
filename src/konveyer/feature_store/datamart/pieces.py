"""Cutting the labels of a heavy bucket into pieces that read a part of its rows each.

Labels in the order of keys and moments need the row groups of a table, whose rows have that order,
one after another: a client with many rows falls into ranges of time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.kernel.codes import Ints, distinct
from konveyer.feature_store.kernel.evaluate import ViewPlan, last_refresh
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.kernel.spine import Spine
from konveyer.feature_store.offline.row_groups import Group, RowGroup

# So many rows of a table, and so many labels, are held at a time where that can be.
MOST_ROWS = 1_000_000
_NEVER, _ALWAYS = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The labels at places `start` to `end` of a `sorted_spine`, and what is read for them."""

    start: int
    end: int
    groups: frozenset[Group]


def is_heavy(view: PinnedView, bucket: int, labels: int, most_rows: int) -> bool:
    """Whether a bucket with so many labels is to be cut into pieces."""
    return max(view.table.rows_of(bucket), labels) > most_rows


def sorted_spine(keys: pa.Table, at_us: Ints) -> tuple[Spine, Ints]:
    """As `spine_of`, with rows of one entity and moment in the order in which they come.

    So every machine cuts the same rows into the same pieces.
    """
    entities, codes = distinct(keys)
    order = np.lexsort((at_us, codes))
    return Spine(entities=entities, codes=codes[order], at_us=at_us[order]), order


def pieces_of(view: PinnedView, bucket: int, spine: Spine, most_rows: int) -> list[Piece]:
    """Cut the spine of one bucket, which has the view's join keys.

    A piece reads `most_rows` at most, or twice what its first label alone needs: labels whose
    windows have more rows than that must read them, and longer pieces read them fewer times.
    Reads no data of the table.
    """
    created = [CREATED_TIME] if CREATED_TIME in view.columns else []
    found = view.table.row_groups(bucket, [*view.plan.keys, EVENT_TIME, *created])
    return _cut(_needs(view.plan, found, spine, bool(created)), len(spine.at_us), most_rows)


@dataclass(frozen=True, slots=True)
class _Need:
    """The labels from `start` to `end`, in a `sorted_spine`, that need a row group."""

    group: RowGroup
    start: int
    end: int


def _needs(
    plan: ViewPlan, groups: Sequence[RowGroup], spine: Spine, has_created: bool
) -> list[_Need]:
    newest_us = last_refresh(spine.at_us, plan.refresh_us)
    oldest_us = _oldest(plan, spine.at_us, newest_us)
    keys = [_values(spine.entities.column(name)) for name in plan.keys]
    outdated = {} if plan.windowed else _outdated(plan, groups, has_created)
    needs = []
    for group in groups:
        start, end = np.searchsorted(spine.codes, _of_keys(plan, group, keys)).tolist()
        if _key_of(plan, group) is not None and EVENT_TIME in group.ranges:
            # Of one entity; moments rise from label to label.
            first_us, last_us = group.ranges[EVENT_TIME]
            newest, oldest = newest_us[start:end], oldest_us[start:end]
            until = min(
                np.searchsorted(oldest, last_us, side="right"),
                np.searchsorted(newest, outdated.get(group.group, _NEVER), side="left"),
            )
            start, end = start + int(np.searchsorted(newest, first_us)), start + int(until)
        if start < end:
            needs.append(_Need(group, start, end))
    return needs


def _oldest(plan: ViewPlan, at_us: Ints, newest_us: Ints) -> Ints:
    """For each label a moment before which no row counts."""
    lengths = [feature.over_us for feature in plan.windowed] or [plan.ttl_us]
    if None in lengths:
        return np.full(len(at_us), _ALWAYS)
    start = newest_us if plan.windowed else at_us
    return start - max(length for length in lengths if length is not None)


def _key_of(plan: ViewPlan, group: RowGroup) -> tuple[Any, ...] | None:
    """The join keys of the only entity in a row group."""
    ranges = [group.ranges.get(name, (None, 0)) for name in plan.keys]
    if any(lowest != highest for lowest, highest in ranges):
        return None
    return tuple(lowest for lowest, _ in ranges)


def _outdated(plan: ViewPlan, groups: Sequence[RowGroup], has_created: bool) -> dict[Group, int]:
    """For row groups of one entity the moment from which a later one has its newest row.

    By then a row that is later than all of theirs has happened, and is known.
    """
    of_key: dict[tuple[Any, ...], list[RowGroup]] = defaultdict(list)
    for group in groups:
        key = _key_of(plan, group)
        if key is not None and EVENT_TIME in group.ranges:
            of_key[key].append(group)
    outdated = {}
    for same in of_key.values():
        same.sort(key=lambda group: group.ranges[EVENT_TIME][0])
        firsts = np.array([group.ranges[EVENT_TIME][0] for group in same])
        known = np.array([_known(plan, group, has_created) for group in same])
        from_here = np.minimum.accumulate(known[::-1])[::-1]
        for group in same:
            later = int(np.searchsorted(firsts, group.ranges[EVENT_TIME][1], side="right"))
            if later < len(same):
                outdated[group.group] = int(from_here[later])
    return outdated


def _known(plan: ViewPlan, group: RowGroup, has_created: bool) -> int:
    """The moment from which the first row of a row group is visible for certain."""
    happened: int = group.ranges[EVENT_TIME][0]
    if not (plan.as_known and has_created):
        return happened
    became_known: int = group.ranges.get(CREATED_TIME, (0, _NEVER))[1]
    return max(happened, became_known)


def _of_keys(plan: ViewPlan, group: RowGroup, keys: Sequence[npt.NDArray[Any]]) -> tuple[int, int]:
    """From which entity up to which one a row group may have rows."""
    start, end = 0, len(keys[0])
    for name, values in zip(plan.keys, keys, strict=True):
        if name not in group.ranges:
            break
        lowest, highest = group.ranges[name]
        here = values[start:end]
        start, end = (
            start + int(np.searchsorted(here, lowest, side="left")),
            start + int(np.searchsorted(here, highest, side="right")),
        )
        if lowest != highest:  # the next key rises anew for each value of this one
            break
    return start, end


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A join key of all entities; texts as Python's, which have the order of Parquet's."""
    filled = _filled(column)
    if pa.types.is_integer(column.type):
        return np.asarray(filled.to_numpy())
    values = np.empty(len(column), object)
    values[:] = filled.to_pylist()
    return values


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Nulls read in vain with the lowest key, and still match nothing."""
    return column.fill_null(_ALWAYS if pa.types.is_integer(column.type) else "")


def _cut(needs: Sequence[_Need], labels: int, most_rows: int) -> list[Piece]:
    starts = np.array([need.start for need in needs], np.int64)
    ends = np.array([need.end for need in needs], np.int64)
    rows = np.array([need.group.rows for need in needs], np.int64)

    def needed(start: int, end: int) -> npt.NDArray[np.bool_]:
        return (starts < end) & (ends > start)

    pieces: list[Piece] = []

    def add(start: int, end: int) -> None:
        groups = frozenset(
            needs[n].group.group for n in np.flatnonzero(needed(start, end)).tolist()
        )
        pieces.append(Piece(start=start, end=end, groups=groups))

    start = 0
    edges = np.unique([*starts, *range(most_rows, labels, most_rows), labels])
    for edge, following in zip(edges, [*edges[1:], labels], strict=True):
        if not start < edge < labels:
            continue
        most = max(most_rows, 2 * int(rows[needed(start, start + 1)].sum()))
        if rows[needed(start, following)].sum() > most or following - start > most_rows:
            add(start, int(edge))
            start = int(edge)
    add(start, labels)
    return pieces
