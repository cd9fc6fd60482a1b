"""Candidates beside the live version, with real nodes and callers: shadow, replay, canary."""

import math
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.execution.releases.machine import State
from tests.journeys.callers import Callers, calling
from tests.journeys.candidates import PATH, Candidate, opened_at
from tests.support import Shop, node, wait_for

QUICK = "[release.canary]\nweights = [0.2, 0.5]\nhold_s = 2\nrows = 20\nwithin_s = 120\n"
LONG = "[release.canary]\nweights = [0.3]\nhold_s = 3600\nrows = 20\n"


def live_digest(shop: Shop) -> str:
    digest: str = next(
        one["digest"] for one in shop.run("release", "list") if one["state"] == "live"
    )
    return digest


def stage(release: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in release["stages"] if one["stage"] == name)
    return found


def test_a_canary_that_does_as_well_is_promoted_by_itself(shop_copy: Shop) -> None:
    before = live_digest(shop_copy)
    candidate = opened_at(shop_copy.root, State.CANARY, policy=QUICK)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, pause_s=0.005) as callers,
    ):
        wait_for(lambda: callers.answers)
        release = shop_copy.run("release", "continue", candidate.release)
        assert release["state"] == "live", release["reason"]
        wait_for(lambda: callers.answers[-1][2] == candidate.digest)
    assert callers.failures == []
    assert callers.bundles_since(0) == {before, candidate.digest}
    steps = stage(release, "canary")["evidence"]["steps"]
    assert [(step["weight"], step["decision"]) for step in steps] == [(0.2, "next"), (0.5, "next")]
    for step in steps:
        assert step["candidate"]["rows"] >= 20
        assert step["live"]["rows"] > 0


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (lambda _: math.nan, "failures"),
        pytest.param(lambda value: value * 60, "distribution", marks=pytest.mark.slow),
    ],
)
def test_a_canary_that_does_worse_is_taken_back_and_no_caller_fails(
    shop_copy: Shop, leaf: Callable[[float], float], reason: str
) -> None:
    before = live_digest(shop_copy)
    candidate = opened_at(shop_copy.root, State.CANARY, policy=QUICK, leaf=leaf)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, pause_s=0.005) as callers,
    ):
        wait_for(lambda: callers.answers)
        release = shop_copy.failed("release", "continue", candidate.release)
        asked = len(callers.answers)
        wait_for(lambda: len(callers.answers) > asked + 200)
        assert {bundle for _, _, bundle in callers.answers[-100:]} == {before}
    assert callers.failures == []
    assert release["state"] == "rolled-back"
    assert reason in release["reason"]


def test_a_release_that_knows_fewer_than_production_stops_at_integration(shop_copy: Shop) -> None:
    candidate = opened_at(shop_copy.root, State.INTEGRATION, knows_nobody=True)
    release = shop_copy.failed("release", "continue", candidate.release)
    assert release["state"] == "failed"
    (stage,) = [one for one in release["stages"] if one["stage"] == "integration"]
    assert "knows 0 of " in stage["measured"]
    assert stage["evidence"]["lost"]


@pytest.mark.slow
def test_a_canary_that_knows_nobody_is_taken_back_and_callers_are_answered(shop_copy: Shop) -> None:
    candidate = opened_at(shop_copy.root, State.CANARY, policy=QUICK, knows_nobody=True)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, pause_s=0.005) as callers,
    ):
        wait_for(lambda: callers.answers)
        release = shop_copy.failed("release", "continue", candidate.release)
    assert (release["state"], callers.failures) == ("rolled-back", [])
    assert "failures" in release["reason"]
    assert callers.known
    assert not callers.known & callers.unknown


@pytest.mark.slow
@pytest.mark.parametrize("decision", ["promote", "rollback"])
def test_a_person_ends_a_canary(shop_copy: Shop, decision: str) -> None:
    before = live_digest(shop_copy)
    candidate = opened_at(shop_copy.root, State.CANARY, policy=LONG)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, pause_s=0.005) as callers,
        watching(shop_copy, candidate) as process,
    ):
        wait_for(lambda: answers_of(callers, candidate))
        act = ["promote"] if decision == "promote" else ["rollback", "--reason", "enough"]
        shop_copy.run("release", act[0], candidate.release, *act[1:], profile="boris")
        last = candidate.digest if decision == "promote" else before
        watched = shop_copy.attempt("release", "watch", candidate.release)
        assert watched.returncode == (0 if decision == "promote" else 1)
        wait_for(lambda: process.poll() is not None)
        asked = len(callers.answers)
        wait_for(lambda: len(callers.answers) > asked + 200)
        assert {bundle for _, _, bundle in callers.answers[-100:]} == {last}
    assert callers.failures == []
    state = shop_copy.run("release", "show", candidate.release)["state"]
    assert state == ("live" if decision == "promote" else "rolled-back")


@pytest.mark.slow
def test_a_canary_that_is_killed_in_the_middle_goes_on_with_its_weight(shop_copy: Shop) -> None:
    policy = QUICK.replace("hold_s = 2", "hold_s = 8")
    candidate = opened_at(shop_copy.root, State.CANARY, policy=policy)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, pause_s=0.005) as callers,
    ):
        with watching(shop_copy, candidate) as process:
            wait_for(lambda: answers_of(callers, candidate))
            process.send_signal(signal.SIGKILL)
            process.wait()
        begun = stage(shop_copy.run("release", "show", candidate.release), "canary")
        release = shop_copy.run("release", "continue", candidate.release)
    assert release["state"] == "live", release["reason"]
    after = stage(release, "canary")["evidence"]["steps"]
    assert after[0]["since_us"] == begun["evidence"]["steps"][0]["since_us"]
    assert callers.failures == []


def test_a_shadow_sees_production_and_nobody_gets_its_answers(shop_copy: Shop) -> None:
    before = live_digest(shop_copy)
    policy = "[release.shadow]\nshare = 0.5\nrows = 30\nwithin_s = 120\n"
    candidate = opened_at(shop_copy.root, State.SHADOW, policy=policy, leaf=lambda v: v * 1.01)
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, threads=1, pause_s=0.01) as callers,
        watching(shop_copy, candidate) as process,
    ):
        wait_for(lambda: process.poll() is not None)
        release = shop_copy.run("release", "show", candidate.release)
        wait_for(lambda: callers.answers[-1][2] == candidate.digest)
    assert release["state"] == "live", release["reason"]
    shadow = stage(release, "shadow")
    assert shadow["evidence"]["candidate"]["rows"] >= 30
    assert 0 < shadow["evidence"]["differences"]["max"] < 0.1
    assert shadow["evidence"]["furthest_apart"]
    taken_up = stage(release, "production")["started_us"] - stage(release, "shadow")["started_us"]
    assert taken_up > 0
    assert callers.failures == []
    assert callers.bundles_since(0) == {before, candidate.digest}


def test_recorded_requests_are_replayed(shop_copy: Shop) -> None:
    command, headers = serving(shop_copy)
    with (
        node(command, shop_copy.root, "prod") as (url, _),
        calling(url, PATH, headers, threads=1) as callers,
    ):
        wait_for(lambda: len(callers.answers) > 100)
    # What a household did is another story now, online too: that is no candidate's doing.
    bought = shop_copy.root / "data/transactions.parquet"
    table = pq.read_table(bought)
    pq.write_table(table.take(pa.array(range(0, len(table), 3))), bought)
    shop_copy.run("etl", "run")
    policy = "[release.replay]\nrows = 50\n"
    candidate = opened_at(shop_copy.root, State.REPLAY, policy=policy)
    release = shop_copy.run("release", "continue", candidate.release)
    assert release["state"] == "live", release["reason"]
    replay = stage(release, "replay")
    assert replay["measured"].startswith("50 of 50 answered; 100% of the answers are the same")
    assert replay["evidence"]["features_retrieved"] == []
    other = opened_at(shop_copy.root, State.REPLAY, policy="", leaf=lambda value: value * 60)
    stopped = shop_copy.failed("release", "continue", other.release)
    assert "distribution of prediction" in stopped["reason"]


def serving(shop: Shop) -> tuple[list[str], dict[str, str]]:
    """The command of a production node, and the headers of those who call it."""
    headers = shop.caller()
    return shop.command("serve", "prod", "--port", "0"), headers


def watching(shop: Shop, candidate: Candidate) -> "subprocess.Popen[bytes]":
    """The command that takes the release on, in the background."""
    command = shop.command("release", "continue", candidate.release)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def answers_of(callers: Callers, candidate: Candidate) -> int:
    return sum(bundle == candidate.digest for _, _, bundle in callers.answers)
