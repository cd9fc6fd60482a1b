"""Judging shadows, replays and canaries from rows of the prediction log."""

from typing import Any

import numpy as np
import pytest

from konveyer.bundle.release_policy import Canary, Replay, Shadow
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.execution.releases.beside import Allowed, compare_sides
from konveyer.execution.releases.gates import replay, shadow
from konveyer.execution.releases.gates.canary import Decision, Step, decide
from konveyer.execution.releases.observed import Pairs, paired, seen
from tests.unit.releases.test_difference import packed

POLICY = Canary(hold_s=60, rows=50, within_s=600)
ALLOWED = Allowed(failures=0.01, slow=0.01, shift=0.25, p99_ms=50)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "request_id": f"r-{number}",
        "release": "rel-1",
        "side": "live",
        "status": 200,
        "error": None,
        "latency_us": 2000,
        "keys": [number],
        "request": [],
        "given": [],
        "features": [1.0],
        "outputs": {"prediction": number % 100 / 100},
        **changes,
    }


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [row(number, **changes) for number in range(count)]


def test_callers_mistakes_are_nobodys_failure() -> None:
    side = seen([row(1), row(2, status=404, outputs=None), row(3, status=503, outputs=None)])
    assert (side.rows, sum(side.failed), len(side.outputs)) == (2, 1, 1)


UNKNOWN = {"status": 404, "error": "entity_not_found", "outputs": None}


def test_entities_that_only_the_live_version_knows_condemn_a_candidate() -> None:
    """Of each two rows one is unknown to the candidate; a tenth is to the live version too."""
    live = [row(n, **(UNKNOWN if n % 10 == 0 else {})) for n in range(300)]
    mirrored = [
        row(n, side="shadow", release="rel-2", **(UNKNOWN if n % 2 == 0 else {}))
        for n in range(300)
    ]
    verdict = shadow.judge(paired([*live, *mirrored], "rel-2"), Shadow(rows=200), p99_ms=50)
    assert not verdict.passed
    assert verdict.evidence["candidate"] == verdict.evidence["candidate"] | {
        "rows": 270,
        "failures": 120,
    }
    assert verdict.evidence["live"]["failures"] == 0
    as_well = [one | {"side": "shadow", "release": "rel-2"} for one in live]
    assert shadow.judge(paired([*live, *as_well], "rel-2"), Shadow(rows=200), p99_ms=50).passed
    assert decide(step(1, [row(n, **UNKNOWN) for n in range(3)]), POLICY) is Decision.BACK


OVERLOADED = {"status": 429, "error": "overloaded", "outputs": None}


def test_a_candidate_that_refuses_for_it_is_too_slow_is_condemned() -> None:
    """That a key was used too often is its caller's mistake, and has the same status."""
    refusing = [row(n, **(OVERLOADED if n % 3 == 0 else {})) for n in range(300)]
    assert decide(step(60, refusing), POLICY) is Decision.BACK
    mirrored = Pairs(live=rows(300), candidate=refusing)
    assert not shadow.judge(mirrored, Shadow(rows=200), p99_ms=50).passed
    both = seen(refusing)
    assert (both.rows, sum(both.failed), len(both.outputs)) == (300, 100, 200)
    assert not any(one.bad for one in compare_sides(both, both, ALLOWED))
    assert seen([row(1, **{**OVERLOADED, "error": "rate_exceeded"})]).rows == 0


def test_a_shadow_is_compared_with_the_answer_to_the_same_row() -> None:
    mirrored = [
        row(n, side="shadow", release="rel-2", outputs={"prediction": 0.5}) for n in range(0, 10, 2)
    ]
    other = [row(n, side="shadow", release="rel-3") for n in range(10)]
    pairs = paired([*rows(10), *mirrored, *other], "rel-2")
    assert [one["keys"] for one in pairs.live] == [one["keys"] for one in pairs.candidate]
    assert len(pairs.live) == 5
    assert pairs.worst(1)[0]["live"] == {"prediction": 0.0}
    assert pairs.distances == [0.5, 0.48, 0.46, 0.44, 0.42]


def test_rows_by_values_alone_are_compared_by_their_place_in_the_request() -> None:
    def request(number: int, more: float, **changes: Any) -> list[dict[str, Any]]:
        scores = [{"prediction": place / 32 + more} for place in range(10)]
        return [row(number, keys=None, outputs=score, **changes) for score in scores]

    live = [*request(1, 0.0), *request(2, 0.0)]
    shadow = {"side": "shadow", "release": "rel-2"}
    mirrored = [*request(1, 0.5, **shadow), *request(2, 0.5, **shadow)]
    assert paired([*mirrored, *live], "rel-2").distances == [0.5] * 20
    assert paired([*mirrored[4:], *live], "rel-2").distances == [0.5] * 16
    # A canary that handed the request over is logged after the answer.
    failed = request(2, 0.0, side="canary", release="rel-3", status=503)
    assert paired([*mirrored, *live, *failed], "rel-2").distances == [0.5] * 20


@pytest.mark.parametrize(
    ("count", "changes", "passes"),
    [
        (300, {}, True),
        (150, {}, False),  # fewer rows than asked for
        (300, {"status": 500, "outputs": None}, False),
        (300, {"latency_us": 90_000}, False),
        (300, {"outputs": {"prediction": 0.99}}, False),
    ],
)
def test_a_shadow_passes_when_it_does_as_well_on_enough_rows(
    count: int, changes: dict[str, Any], passes: bool
) -> None:
    pairs = Pairs(live=rows(count), candidate=rows(count, side="shadow", **changes))
    verdict = shadow.judge(pairs, Shadow(rows=200), p99_ms=50)
    assert verdict.passed is passes
    assert verdict.evidence["candidate"]["rows"] == count


def test_a_replay_wants_every_answer_again() -> None:
    same = Pairs(live=rows(200), candidate=rows(200))
    assert replay.judge(same, Replay(), p99_ms=50).passed
    lost = [*rows(199), row(199, status=500, outputs=None, problem="404 entity_not_found")]
    verdict = replay.judge(Pairs(live=rows(200), candidate=lost), Replay(), p99_ms=50)
    assert not verdict.passed
    assert verdict.evidence["not_answered"] == ["404 entity_not_found"]
    lenient = Replay(most_failures=0.01)
    assert replay.judge(Pairs(live=rows(200), candidate=lost), lenient, p99_ms=50).passed
    other = Pairs(live=rows(200), candidate=rows(200, outputs={"prediction": 0.01}))
    assert not replay.judge(other, Replay(), p99_ms=50).passed
    assert replay.judge(other, Replay(most_shift=1.0), p99_ms=50).passed


def test_a_replay_holds_answers_of_both_sides_against_the_objective() -> None:
    slow = rows(200, latency_us=70_000)
    verdict = replay.judge(Pairs(live=rows(200), candidate=slow), Replay(), p99_ms=50)
    assert not verdict.passed
    assert verdict.measured.startswith("200 of 200 answered; slower than 50 ms: 1 against 0")
    for side, took_ms in (("live", 2.0), ("candidate", 70.0)):
        both = {"p50_ms": took_ms, "p99_ms": took_ms}
        assert verdict.evidence[side] == verdict.evidence[side] | both
    assert replay.judge(Pairs(live=rows(200), candidate=slow), Replay(), p99_ms=80).passed
    assert replay.judge(
        Pairs(live=rows(200), candidate=slow), Replay(most_slow=1), p99_ms=50
    ).passed
    few = [*rows(198), row(198, latency_us=70_000), row(199, latency_us=70_000)]
    assert replay.judge(Pairs(live=rows(200), candidate=few), Replay(), p99_ms=50).passed
    assert replay.judge(Pairs(live=slow, candidate=slow), Replay(), p99_ms=50).passed


def test_a_recorded_row_becomes_the_request_that_it_came_from() -> None:
    service = packed({"spend": "float64", "late": "int64"}).manifest.service
    recorded = row(7, features=[2.5, None], given=["spend"])
    assert replay.body_of(recorded, service) == {"client_id": 7, "spend": 2.5}
    assert service.keys == (ScalarColumn("client_id", ColumnType.INT64),)
    by_values = row(7, keys=None, features=[2.5, None], given=["spend", "late"])
    assert replay.body_of(by_values, service) == {"spend": 2.5, "late": None}


def test_an_instant_that_was_given_is_sent_as_callers_send_it() -> None:
    service = packed({"since": "timestamp"}).manifest.service
    recorded = row(7, features=[1_500_000], given=["since"])
    sent = {"client_id": 7, "since": "1970-01-01T00:00:01.500000Z"}
    assert replay.body_of(recorded, service) == sent


def step(held_s: float, candidate: list[dict[str, Any]]) -> Step:
    live, side = seen(rows(500)), seen(candidate, knows_as_live=True)
    findings = compare_sides(live, side, ALLOWED)
    return Step(weight=0.05, held_s=held_s, live=live, candidate=side, findings=findings)


@pytest.mark.parametrize(
    ("held_s", "candidate", "decision"),
    [
        (59, rows(50), Decision.WAIT),
        (60, rows(49), Decision.WAIT),
        (60, rows(100), Decision.NEXT),
        (601, rows(49), Decision.BACK),  # too little traffic to judge by
        (1, rows(3, status=500, outputs=None), Decision.BACK),
        (1, [row(1, status=500, outputs=None), *rows(60)], Decision.WAIT),
        (60, rows(100, latency_us=70_000), Decision.BACK),
        (60, rows(100, outputs={"prediction": 0.999}), Decision.BACK),
    ],
)
def test_a_canary_is_held_promoted_or_taken_back(
    held_s: float, candidate: list[dict[str, Any]], decision: Decision
) -> None:
    assert decide(step(held_s, candidate), POLICY) is decision


def test_a_retrained_model_is_not_taken_for_a_broken_one() -> None:
    """Scores that moved by chance and a little more, as those of a new training do."""
    random = np.random.default_rng(5)
    old = [row(n, outputs={"prediction": float(v)}) for n, v in enumerate(random.beta(2, 5, 3000))]
    new = [row(n, outputs={"prediction": float(v)}) for n, v in enumerate(random.beta(2.1, 5, 600))]
    assert not any(one.bad for one in compare_sides(seen(old), seen(new), ALLOWED))
