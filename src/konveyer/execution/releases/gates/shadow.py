"""Shadow: the candidate is asked what production is asked, and nobody gets its answers."""

import math
import time
from typing import Any

from konveyer.bundle.release_policy import Shadow
from konveyer.bundle.store import Bundle
from konveyer.core.clock import now_us
from konveyer.execution.releases.beside import Allowed, as_evidence, compare_sides, named
from konveyer.execution.releases.following import MirroredLog
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.watching import (
    Refusals,
    is_still_in,
    kept_evidence,
    nothing_live,
    pause_s,
    stand_beside,
    tell,
)
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.observed import (
    Pairs,
    Url,
    names_in,
    paired,
    seen,
    with_names,
)
from konveyer.execution.releases.samples import percentile
from konveyer.execution.releases.sides import Side
from konveyer.execution.releases.verdict import Verdict

_WORST_SHOWN = 5


def shadow_gate(context: GateContext, bundle: Bundle) -> Verdict:
    """Waits for the rows that the policy asks for. Killed, it goes on with what was mirrored."""
    manifest = bundle.manifest
    policy = manifest.release.shadow or Shadow()
    url = Url(application=manifest.application, api_version=manifest.api_version)
    nothing = nothing_live(context, url)
    if nothing is not None:
        return nothing
    stand_beside(context, Side.SHADOW, policy.share)
    since_us, _ = kept_evidence(context, State.SHADOW)
    log = MirroredLog(context.services.storage, url, since_us, context.release)
    names_of = names_in(context.services.bundles)
    refusals = Refusals(context, bundle.digest)
    while True:
        began = time.monotonic()
        pairs = paired(with_names(log.rows(), names_of), context.release)
        is_over = (now_us() - since_us) / 1e6 > policy.within_s
        verdict = judge(pairs, policy, manifest.objective.p99_ms)
        refused = refusals.look()
        if len(pairs.live) >= policy.rows or is_over or refused:
            return _with_refusals(verdict, refused)
        if not is_still_in(context, State.SHADOW):
            return verdict
        tell(context, State.SHADOW, verdict.measured, verdict.evidence)
        time.sleep(pause_s(since_us, time.monotonic() - began))


def judge(pairs: Pairs, policy: Shadow, p99_ms: float) -> Verdict:
    """By the rows that production and the candidate were both asked."""
    live, candidate = seen(pairs.live), seen(pairs.candidate, knows_as_live=True)
    allowed = Allowed(
        failures=policy.most_failures,
        slow=policy.most_slow,
        shift=policy.most_shift,
        p99_ms=p99_ms,
    )
    findings = compare_sides(live, candidate, allowed)
    wrong = named(findings)
    enough = len(pairs.live) >= policy.rows
    return Verdict(
        passed=enough and not wrong,
        rule="mirrored requests of production are answered as well as by the live version",
        measured=f"{len(pairs.live)} rows"
        + (f"; {wrong}" if wrong else "")
        + f"; {said_of(pairs.distances)}",
        limit=f"{policy.rows} rows, {policy.most_failures:.3g} more failures, "
        f"{policy.most_slow:.3g} more slow, shift {policy.most_shift:.3g}",
        evidence=as_evidence(live, candidate, findings)
        | {
            "differences": differences(pairs.distances),
            "furthest_apart": pairs.worst(_WORST_SHOWN),
        },
    )


def said_of(distances: list[float]) -> str:
    """The differences in a few words."""
    if not distances:
        return "no answers to compare"
    same = sum(one == 0 for one in distances) / len(distances)
    half = percentile(distances, 0.5) or 0.0
    return f"{same:.0%} of the answers are the same, half differ by at most {half:.3g}"


def differences(distances: list[float]) -> dict[str, Any]:
    """The spread of the differences; None where an answer is no number that can be compared."""
    found = {
        name: percentile(distances, share)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }
    return {
        name: None if value is None or math.isinf(value) else value for name, value in found.items()
    }


def _with_refusals(verdict: Verdict, refused: list[str]) -> Verdict:
    if not refused:
        return verdict
    return Verdict(
        passed=False,
        rule=verdict.rule,
        measured=f"{len(refused)} node(s) do not take it up: {refused[0]}",
        limit=verdict.limit,
        evidence={**verdict.evidence, "refused": refused},
    )
