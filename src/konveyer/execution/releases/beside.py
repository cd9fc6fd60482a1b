"""Judging a candidate by the live version: failures, answer times, and what they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from konveyer.execution.releases.samples import percentile, share_surely_above, shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Rows of one side: whether each failed, how long it took, and its outputs by name if not."""

    failed: Sequence[bool]
    took_ms: Sequence[float]
    outputs: Sequence[Mapping[str, Any]]

    @property
    def rows(self) -> int:
        return len(self.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a candidate may be worse by: shares of rows, and the shift of an output (0 to 1).

    A row is slow when it takes longer than the `p99_ms` that callers are promised.
    """

    failures: float
    slow: float
    shift: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One comparison. `surely` is what of the difference is no chance; above `allowed` is `bad`."""

    what: str
    live: float
    candidate: float
    surely: float
    allowed: float

    @property
    def bad(self) -> bool:
        return self.surely > self.allowed


def compare_sides(live: Seen, candidate: Seen, allowed: Allowed) -> list[Finding]:
    """Failures, slow answers, and the shift of each output that both sides have; the live side may
    have no rows.
    """
    slow = [
        sum(took > allowed.p99_ms for took in side.took_ms) / max(1, side.rows)
        for side in (live, candidate)
    ]
    failed = [sum(side.failed) / max(1, side.rows) for side in (live, candidate)]
    slow_rows = round(slow[1] * candidate.rows)
    findings = [
        Finding(
            what="failures",
            live=failed[0],
            candidate=failed[1],
            surely=share_surely_above(sum(candidate.failed), candidate.rows) - failed[0],
            allowed=allowed.failures,
        ),
        Finding(
            what=f"slower than {allowed.p99_ms:g} ms",
            live=slow[0],
            candidate=slow[1],
            surely=share_surely_above(slow_rows, candidate.rows) - slow[0],
            allowed=allowed.slow,
        ),
    ]
    for name in shared_names([*candidate.outputs, *live.outputs]):
        apart = shift(
            [outputs[name] for outputs in live.outputs],
            [outputs[name] for outputs in candidate.outputs],
        )
        findings.append(
            Finding(
                what=f"distribution of {name}",
                live=0.0,
                candidate=apart.seen,
                surely=apart.surely,
                allowed=allowed.shift,
            )
        )
    return findings


def shared_names(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The outputs that all have, in the order of the first."""
    first, *others = answers or [{}]
    return [name for name in first if all(name in one for one in others)]


def as_evidence(live: Seen, candidate: Seen, findings: Sequence[Finding]) -> dict[str, Any]:
    """What was compared, for people and scripts."""
    return {
        "live": _summary(live),
        "candidate": _summary(candidate),
        "compared": [asdict(one) | {"bad": one.bad} for one in findings],
    }


def _summary(side: Seen) -> dict[str, Any]:
    return {
        "rows": side.rows,
        "failures": sum(side.failed),
        "p50_ms": percentile(side.took_ms, 0.5),
        "p99_ms": percentile(side.took_ms, 0.99),
    }


def named(findings: Sequence[Finding]) -> str:
    """The findings that condemn, in words; empty when none does."""
    return "; ".join(
        f"{one.what}: {one.candidate:.3g} against {one.live:.3g}, surely {one.surely:.3g} more"
        for one in findings
        if one.bad
    )
