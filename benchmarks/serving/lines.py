"""What is printed: one JSON object for each comparison; `ratio` is how many times better we are."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.features.lines import digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One side under load: requests a second, milliseconds, CPU for each request, memory."""

    rate_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mb: float


def typical(runs: Sequence[Seen]) -> Seen:
    """The median of each figure; the highest memory."""
    return Seen(
        rate_per_s=median(run.rate_per_s for run in runs),
        p50_ms=median(run.p50_ms for run in runs),
        p99_ms=median(run.p99_ms for run in runs),
        cpu_ms=median(run.cpu_ms for run in runs),
        memory_mb=max(run.memory_mb for run in runs),
    )


def rate_line(bench: str, ours: Seen, peer: str, theirs: Seen) -> dict[str, Any]:
    """Requests a second. `cpu_ratio` compares the CPU that one request costs, on all cores.

    >>> ours = Seen(rate_per_s=900.0, p50_ms=1, p99_ms=2, cpu_ms=0.1, memory_mb=100)
    >>> theirs = Seen(rate_per_s=9.0, p50_ms=100, p99_ms=200, cpu_ms=10, memory_mb=200)
    >>> line = rate_line("predict-c1", ours, "mlflow", theirs)
    >>> line["ratio"], line["p99_ratio"], line["cpu_ratio"]
    (100.0, 100.0, 100.0)
    """
    return {
        "bench": bench,
        "ours": digits(ours.rate_per_s),
        "peer": peer,
        "peer_value": digits(theirs.rate_per_s),
        "ratio": digits(ours.rate_per_s / theirs.rate_per_s),
        "unit": "requests/s",
        "ours_peak_rss_mb": round(ours.memory_mb),
        "peer_peak_rss_mb": round(theirs.memory_mb),
        "cpu_ratio": digits(theirs.cpu_ms / ours.cpu_ms),
        "ours_p99_ms": digits(ours.p99_ms),
        "peer_p99_ms": digits(theirs.p99_ms),
        "p99_ratio": digits(theirs.p99_ms / ours.p99_ms),
    }


def cost_line(
    bench: str,
    unit: str,
    ours: float,
    peer: str,
    peer_value: float,
    *,
    memory_mb: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Seconds or megabytes, of which fewer are better. `memory_mb` is ours and the peer's."""
    ours_mb, peer_mb = (None, None) if memory_mb is None else map(round, memory_mb)
    return {
        "bench": bench,
        "ours": digits(ours),
        "peer": peer,
        "peer_value": digits(peer_value),
        "ratio": digits(peer_value / ours),
        "unit": unit,
        "ours_peak_rss_mb": ours_mb,
        "peer_peak_rss_mb": peer_mb,
        **more,
    }
