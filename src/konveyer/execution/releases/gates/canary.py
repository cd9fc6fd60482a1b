"""Canary: the candidate answers for a growing share of production's requests."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from konveyer.bundle.release_policy import Canary
from konveyer.bundle.store import Bundle
from konveyer.core.clock import now_us
from konveyer.execution.releases.beside import (
    Allowed,
    Finding,
    Seen,
    as_evidence,
    compare_sides,
    named,
)
from konveyer.execution.releases.following import SidesLog
from konveyer.execution.releases.gates.callers import stumbling
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
from konveyer.execution.releases.observed import Row, Url, names_in, seen, with_names
from konveyer.execution.releases.sides import Side
from konveyer.execution.releases.verdict import Verdict

_RULE = "at every weight the canary is no worse than the live version"


class Decision(StrEnum):
    WAIT = "wait"
    NEXT = "next"
    BACK = "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One weight: how long it has been held, and what was seen of both sides meanwhile."""

    weight: float
    held_s: float
    live: Seen
    candidate: Seen
    findings: Sequence[Finding]


def canary_stage(context: GateContext, bundle: Bundle) -> Verdict:
    """Weight after weight. Killed in the middle, it goes on with the weight that was held."""
    manifest = bundle.manifest
    policy = manifest.release.canary or Canary()
    url = Url(application=manifest.application, api_version=manifest.api_version)
    said = nothing_live(context, url)
    if said is not None:
        return said
    _, kept = kept_evidence(context, State.CANARY)
    steps: list[dict[str, Any]] = list(kept.get("steps", []))
    allowed = Allowed(
        failures=policy.most_failures,
        slow=policy.most_slow,
        shift=policy.most_shift,
        p99_ms=manifest.objective.p99_ms,
    )
    names_of = names_in(context.services.bundles)
    refusals = Refusals(context, bundle.digest)
    for number, weight in enumerate(policy.weights):
        if number < len(steps) and steps[number]["decision"] == Decision.NEXT:
            continue
        said = stumbling(context, bundle, _RULE)
        if said is not None:
            return replace(said, evidence={**said.evidence, "steps": steps})
        if number == len(steps):
            steps.append({"weight": weight, "since_us": now_us(), "decision": Decision.WAIT})
            tell(context, State.CANARY, f"{weight:.0%} begins", {"steps": steps})
        stand_beside(context, Side.CANARY, weight)
        since_us = steps[number]["since_us"]
        log = SidesLog(context.services.storage, url, since_us)
        while steps[number]["decision"] == Decision.WAIT:
            began = time.monotonic()
            rows = with_names(log.rows(), names_of)
            step = _look(context, rows, weight, since_us, allowed)
            refused = refusals.look()
            decision = Decision.BACK if refused else decide(step, policy)
            steps[number] |= {"decision": str(decision), "refused": refused}
            steps[number] |= as_evidence(step.live, step.candidate, step.findings)
            tell(context, State.CANARY, _said(step), {"steps": steps})
            if decision is Decision.BACK:
                return _back(step, policy, steps, refused)
            if not is_still_in(context, State.CANARY):
                return _passed(steps, policy)  # a person has decided, whatever this says
            if decision is Decision.WAIT:
                time.sleep(pause_s(since_us, time.monotonic() - began))
    return _passed(steps, policy)


def decide(step: Step, policy: Canary) -> Decision:
    """Back at once for what is surely worse; on when it was held and seen long enough."""
    if any(finding.bad for finding in step.findings):
        return Decision.BACK
    if step.held_s >= policy.hold_s and step.candidate.rows >= policy.rows:
        return Decision.NEXT
    return Decision.BACK if step.held_s > policy.within_s else Decision.WAIT


def _look(
    context: GateContext, rows: Sequence[Row], weight: float, since_us: int, allowed: Allowed
) -> Step:
    live = seen((row for row in rows if row["side"] == "live"), has_own_entities=True)
    own = (row for row in rows if row["release"] == context.release)
    candidate = seen(own, knows_as_live=True, has_own_entities=True)
    return Step(
        weight=weight,
        held_s=(now_us() - since_us) / 1e6,
        live=live,
        candidate=candidate,
        findings=compare_sides(live, candidate, allowed),
    )


def _said(step: Step) -> str:
    return f"{step.weight:.0%} for {step.held_s:.0f} s, {step.candidate.rows} rows"


def _limit(policy: Canary) -> str:
    return (
        f"{policy.rows} rows and {policy.hold_s:g} s each, {policy.most_failures:.3g} more "
        f"failures, {policy.most_slow:.3g} more slow, shift {policy.most_shift:.3g}"
    )


def _passed(steps: list[dict[str, Any]], policy: Canary) -> Verdict:
    return Verdict(
        passed=True,
        rule=_RULE,
        measured=", ".join(f"{step['weight']:.0%} held" for step in steps),
        limit=_limit(policy),
        evidence={"steps": steps},
    )


def _back(step: Step, policy: Canary, steps: list[dict[str, Any]], refused: list[str]) -> Verdict:
    too_few = f"only {step.candidate.rows} rows in {step.held_s:.0f} s"
    why = f"a node does not take it up: {refused[0]}" if refused else named(step.findings)
    return Verdict(
        passed=False,
        rule=_RULE,
        measured=f"at {step.weight:.0%}: {why or too_few}",
        limit=_limit(policy),
        evidence={"steps": steps},
    )
