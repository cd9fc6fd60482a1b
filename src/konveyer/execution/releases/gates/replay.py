"""Replay: what production was asked lately, asked of the candidate on test.

A node of test is asked by key, as callers ask: that it answers, and how fast. What the candidate
answers is its model's own, from the features that each request had: a node would read today's, and
what had changed since would be taken for the candidate's doing.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import httpx

from konveyer.bundle.release_policy import Replay
from konveyer.bundle.store import Bundle
from konveyer.core.clock import format_us
from konveyer.core.errors import KonveyerError
from konveyer.core.ids import new_id
from konveyer.core.schema import ColumnType, Dtype
from konveyer.execution.releases.beside import Allowed, as_evidence, compare_sides, named
from konveyer.execution.releases.following import REPLAYED_DAYS, answered_rows
from konveyer.execution.releases.gates.answers import answering
from konveyer.execution.releases.gates.context import GateContext, is_unknown, predict_path
from konveyer.execution.releases.gates.shadow import differences, said_of
from konveyer.execution.releases.gates.watching import needless
from konveyer.execution.releases.nodes import no_answer
from konveyer.execution.releases.observed import Pairs, Row, Url, names_in, seen, with_names
from konveyer.execution.releases.recorded import features_then
from konveyer.execution.releases.verdict import Verdict
from konveyer.feature_store.datamart.published import published_features
from konveyer.feature_store.definitions.resolved import ResolvedService

_WORST_SHOWN = 5


def replay_gate(context: GateContext, bundle: Bundle) -> Verdict:
    """The newest answered requests."""
    manifest, services = bundle.manifest, context.services
    policy = manifest.release.replay or Replay()
    url = Url(application=manifest.application, api_version=manifest.api_version)
    recorded = answered_rows(services.storage, url, policy.rows)
    if not recorded:
        lately = f"in the last {REPLAYED_DAYS} days"
        return needless(f"production has recorded no request that it answered {lately}")
    asked_of = {
        digest: services.bundles.open(digest).manifest.service
        for digest in {row["bundle"] for row in recorded}
    }
    # Takes keys, request fields and moments.
    retrieve = partial(
        published_features, services.catalog, services.engine, services.offline, manifest.service
    )
    then = features_then(manifest.service, recorded, asked_of, retrieve)
    with (
        context.on_test(bundle) as node,
        node.client() as client,
        answering(bundle, services.environments, services.secrets) as answer,
    ):
        path, batch = predict_path(manifest), new_id("replay")
        candidate = []
        for place, (row, features) in enumerate(zip(recorded, then.rows, strict=True)):
            body = body_of(row, asked_of[row["bundle"]])
            said = _asked(client, path, body, f"{batch}-{place}", is_known=not then.retrieved)
            candidate.append(_answered(row, said, bundle.digest, partial(answer, [features])))
    names_of = names_in(services.bundles)
    pairs = Pairs(live=with_names(recorded, names_of), candidate=with_names(candidate, names_of))
    return judge(pairs, policy, manifest.objective.p99_ms, then.retrieved)


def judge(pairs: Pairs, policy: Replay, p99_ms: float, retrieved: Sequence[str] = ()) -> Verdict:
    """Every request that production answered is answered in time, and not all too differently.

    `retrieved` are the features that were not recorded with every request.
    """
    live, candidate = seen(pairs.live), seen(pairs.candidate)
    allowed = Allowed(
        failures=policy.most_failures,
        slow=policy.most_slow,
        shift=policy.most_shift,
        p99_ms=p99_ms,
    )
    findings = compare_sides(live, candidate, allowed)
    refused = [row for row in pairs.candidate if row["outputs"] is None]
    share = len(refused) / max(1, len(pairs.candidate))
    wrong = named([one for one in findings if one.what != "failures"])
    return Verdict(
        passed=share <= policy.most_failures and not wrong,
        rule="recorded requests of production are answered again",
        measured=f"{len(pairs.live) - len(refused)} of {len(pairs.live)} answered"
        + (f"; {wrong}" if wrong else "")
        + f"; {said_of(pairs.distances)}",
        limit=f"failures {policy.most_failures:.3g}, {policy.most_slow:.3g} more slow, "
        f"shift {policy.most_shift:.3g}",
        evidence=as_evidence(live, candidate, findings)
        | {
            "differences": differences(pairs.distances),
            "furthest_apart": pairs.worst(_WORST_SHOWN),
            "not_answered": [row["problem"] for row in refused[:_WORST_SHOWN]],
            "features_retrieved": [*retrieved],
        },
    )


def body_of(row: Row, service: ResolvedService) -> dict[str, Any]:
    """The request that a logged row came from: keys, request fields, and values that were given.

    `service` is that of the bundle that answered.
    """
    sent: dict[str, Any] = dict(
        zip((key.name for key in service.keys), row["keys"] or (), strict=False)
    )
    for field, value in zip(service.request, row["request"] or (), strict=False):
        sent[field.name] = _as_sent(value, field.dtype)
    for column, value in zip(service.columns, row["features"] or (), strict=False):
        if column.name in (row["given"] or ()):
            sent[column.name] = _as_sent(value, column.dtype)
    return sent


def _as_sent(value: Any, dtype: Dtype) -> Any:
    """The log has instants as microseconds."""
    is_instant = dtype is ColumnType.TIMESTAMP and value is not None
    return format_us(int(value)) if is_instant else value


class _Said(NamedTuple):
    """How long a node took, and why it did not answer."""

    took_us: int
    problem: str | None


def _asked(
    client: httpx.Client, path: str, body: dict[str, Any], request_id: str, *, is_known: bool
) -> _Said:
    """An entity that the same views knew then (`is_known`), and know no more, was forgotten since:
    that is nobody's failure.
    """
    before = time.perf_counter()
    problem = None
    try:
        answer = client.post(path, json=body, headers={"x-request-id": request_id})
        if not answer.is_success and not (is_known and is_unknown(answer)):
            problem = answer.text[:500]
    except httpx.HTTPError as error:
        problem = no_answer(error)
    return _Said(int((time.perf_counter() - before) * 1e6), problem)


def _answered(
    row: Row, said: _Said, digest: str, model: Callable[[], list[tuple[Any, ...]]]
) -> Row:
    """The candidate's answer, in the form of the prediction log."""
    outputs, problem = None, said.problem
    if problem is None:
        try:
            ((*outputs,),) = model()
        except KonveyerError as error:
            problem = error.message
    return {
        "status": 200 if problem is None else 500,
        "latency_us": said.took_us,
        "bundle": digest,
        "keys": row["keys"],
        "request": row["request"],
        "outputs": outputs,
        "problem": problem,
    }
