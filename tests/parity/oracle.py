"""What features should be, written so plainly that the eye can check it: a loop for each row."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    key: tuple[Any, ...]
    event_us: int
    created_us: int
    value: Any
    passes: bool


def visible(
    events: Sequence[Event], key: tuple[Any, ...], at_us: int, *, as_known: bool
) -> list[Event]:
    """The entity's rows at or before `at_us`, oldest first; ties keep their order."""
    if None in key:
        return []
    rows = [e for e in events if e.key == key and e.event_us <= at_us]
    if as_known:
        rows = [e for e in rows if e.created_us <= at_us]
        return sorted(rows, key=lambda e: (e.event_us, e.created_us))
    return sorted(rows, key=lambda e: (e.event_us, e.created_us))


def newest(
    events: Sequence[Event],
    key: tuple[Any, ...],
    at_us: int,
    *,
    oldest_us: int | None,
    as_known: bool,
) -> Any:
    """The value of the newest visible row; None when there is none or it is older than allowed."""
    rows = visible(events, key, at_us, as_known=as_known)
    if not rows or (oldest_us is not None and rows[-1].event_us < oldest_us):
        return None
    return rows[-1].value


def aggregated(
    events: Sequence[Event],
    key: tuple[Any, ...],
    at_us: int,
    *,
    function: str,
    over_us: int | None,
    counts_rows: bool,
    filtered: bool,
    as_known: bool,
) -> Any:
    """The aggregate over `(at - over, at]`; over everything until `at` when `over` is None."""
    rows = visible(events, key, at_us, as_known=as_known)
    if over_us is not None:
        rows = [e for e in rows if e.event_us > at_us - over_us]
    if filtered:
        rows = [e for e in rows if e.passes]
    values = [1 for _ in rows] if counts_rows else [e.value for e in rows if e.value is not None]
    if function == "count":
        return len(values)
    if function == "count_distinct":
        return len(set(values))
    if not values or (function == "stddev" and len(values) < 2):
        return None
    match function:
        case "sum":
            return sum(values)
        case "mean":
            return sum(values) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "stddev":
            return statistics.stdev(values)
    raise AssertionError(function)
