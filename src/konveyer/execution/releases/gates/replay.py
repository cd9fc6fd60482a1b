"""Replay: what production was asked lately, asked of the candidate on test."""

import time
from typing import Any

import httpx

from konveyer.bundle.release_policy import Replay
from konveyer.bundle.store import Bundle
from konveyer.core.clock import format_us
from konveyer.core.ids import new_id
from konveyer.core.schema import ColumnType
from konveyer.execution.releases.beside import Allowed, as_evidence, compare_sides, named
from konveyer.execution.releases.gates.context import GateContext, predict_path
from konveyer.execution.releases.gates.shadow import differences, said_of
from konveyer.execution.releases.gates.watching import needless
from konveyer.execution.releases.observed import Pairs, Row, Url, answered_rows, seen
from konveyer.execution.releases.verdict import Verdict
from konveyer.feature_store.definitions.resolved import ResolvedService

_WORST_SHOWN = 5


def replay_gate(context: GateContext, bundle: Bundle) -> Verdict:
    """The newest answered requests. Features are read now: they may be newer than they were."""
    manifest = bundle.manifest
    policy = manifest.release.replay or Replay()
    url = Url(application=manifest.application, api_version=manifest.api_version)
    recorded = answered_rows(context.services.storage, url, policy.rows)
    if not recorded:
        return needless("production has recorded no request that it answered")
    with (
        context.on_test(bundle) as node,
        httpx.Client(base_url=node.url, headers=node.headers, timeout=10.0) as client,
    ):
        path, batch = predict_path(manifest), new_id("replay")
        answers = [
            _asked(client, path, f"{batch}-{place}", row, manifest.service)
            for place, row in enumerate(recorded)
        ]
    return judge(Pairs(live=recorded, candidate=answers), policy)


def judge(pairs: Pairs, policy: Replay) -> Verdict:
    """Every request that production answered is answered, and not all too differently."""
    live, candidate = seen(pairs.live), seen(pairs.candidate)
    allowed = Allowed(
        failures=policy.most_failures, slow=1.0, shift=policy.most_shift, p99_ms=float("inf")
    )
    findings = [one for one in compare_sides(live, candidate, allowed) if "slow" not in one.what]
    refused = [row for row in pairs.candidate if row["outputs"] is None]
    share = len(refused) / max(1, len(pairs.candidate))
    wrong = named([one for one in findings if one.what != "failures"])
    return Verdict(
        passed=share <= policy.most_failures and not wrong,
        rule="recorded requests of production are answered again",
        measured=f"{len(pairs.live) - len(refused)} of {len(pairs.live)} answered"
        + (f"; {wrong}" if wrong else "")
        + f"; {said_of(pairs.distances)}",
        limit=f"failures {policy.most_failures:.3g}, shift {policy.most_shift:.3g}",
        evidence=as_evidence(live, candidate, findings)
        | {
            "differences": differences(pairs.distances),
            "furthest_apart": pairs.worst(_WORST_SHOWN),
            "not_answered": [row["problem"] for row in refused[:_WORST_SHOWN]],
        },
    )


def body_of(row: Row, service: ResolvedService) -> dict[str, Any]:
    """The request that a logged row came from: keys, request fields, and values that were given."""
    body = dict(zip((key.name for key in service.keys), row["keys"], strict=False))
    for field, value in zip(service.request, row["request"] or (), strict=False):
        is_instant = field.dtype is ColumnType.TIMESTAMP and value is not None
        body[field.name] = format_us(int(value)) if is_instant else value
    names = [column.name for column in service.columns]
    used = dict(zip(names, row["features"] or (), strict=False))
    return body | {name: used[name] for name in row["given"] or () if name in used}


def _asked(
    client: httpx.Client, path: str, request_id: str, row: Row, service: ResolvedService
) -> Row:
    """The candidate's answer, in the form of the prediction log."""
    before = time.perf_counter()
    answer = client.post(path, json=body_of(row, service), headers={"x-request-id": request_id})
    took_us = int((time.perf_counter() - before) * 1e6)
    given = answer.json().get("prediction") if answer.is_success else None
    outputs = list(given.values()) if isinstance(given, dict) else [given]
    return {
        "status": answer.status_code if answer.status_code < 400 else 500,
        "latency_us": took_us,
        "keys": row["keys"],
        "request": row["request"],
        "outputs": outputs if answer.is_success else None,
        "problem": "" if answer.is_success else answer.text[:500],
    }
