"""What is printed: one JSON object for each comparison.

`ratio` is how many times better we are than the peer, in time; `cpu_ratio` in CPU time, which a
busy machine disturbs less.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

PER_SECOND = {"s": 1, "us": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run of one side, or several made one: the median of times, the highest peak."""

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float


def typical(runs: Sequence[Measured]) -> Measured:
    return Measured(
        seconds=median(run.seconds for run in runs),
        cpu_seconds=median(run.cpu_seconds for run in runs),
        peak_rss_mb=max(run.peak_rss_mb for run in runs),
    )


def peer_line(
    bench: str, unit: str, ours: Measured, peer: str, theirs: Measured, **more: Any
) -> dict[str, Any]:
    """
    >>> ours = Measured(seconds=2.0, cpu_seconds=2.0, peak_rss_mb=100)
    >>> theirs = Measured(seconds=3.0, cpu_seconds=3.0, peak_rss_mb=200)
    >>> peer_line("growth", "s", ours, "ours-1x", theirs)["ratio"]
    1.5
    """
    return {
        "bench": bench,
        "ours": digits(ours.seconds * PER_SECOND[unit]),
        "peer": peer,
        "peer_value": digits(theirs.seconds * PER_SECOND[unit]),
        "ratio": digits(theirs.seconds / ours.seconds),
        "unit": unit,
        "ours_peak_rss_mb": round(ours.peak_rss_mb),
        "peer_peak_rss_mb": round(theirs.peak_rss_mb),
        "cpu_ratio": digits(theirs.cpu_seconds / ours.cpu_seconds),
        **more,
    }


def growth_lines(by_times: Mapping[int, Measured]) -> list[dict[str, Any]]:
    """Time for each 1x of history against the shortest one; peak memory of the last doubling.

    `exponent` is e in time = history^e, from the shortest history to this one, and
    `doubling_exponent` from the one before: no flat beginning hides a bend at the end.
    """
    first, *_ = sorted(by_times)
    lines = []
    for shorter, times in pairwise(sorted(by_times)):
        ours, start = by_times[times], by_times[first]
        exponents = {
            "exponent": _exponent(by_times, first, times),
            "doubling_exponent": _exponent(by_times, shorter, times),
        }
        for_each = Measured(
            seconds=ours.seconds / times,
            cpu_seconds=ours.cpu_seconds / times,
            peak_rss_mb=ours.peak_rss_mb,
        )
        line = peer_line("growth", "s", for_each, f"ours-{first}x", start)
        lines.append({**line, "unit": "s/1x", "history": f"{times}x", **exponents})
    before, last = sorted(by_times)[-2:]
    lower, higher = by_times[before].peak_rss_mb, by_times[last].peak_rss_mb
    memory = {
        "bench": "growth",
        "ours": round(higher),
        "peer": f"ours-{before}x",
        "peer_value": round(lower),
        "ratio": digits(lower / higher),
        "unit": "MB",
        "ours_peak_rss_mb": round(higher),
        "peer_peak_rss_mb": round(lower),
        "history": f"{last}x",
        "growth_percent": round(100 * (higher / lower - 1)),
    }
    return [*lines, memory]


def _exponent(by_times: Mapping[int, Measured], start: int, end: int) -> float:
    growth = by_times[end].seconds / by_times[start].seconds
    return digits(math.log(growth) / math.log(end / start))


def digits(number: float) -> float:
    """Three significant digits: more would be noise."""
    return float(f"{number:.3g}")
