"""Lead time in working days, and where it goes."""

from typing import Any

import pytest

from konveyer.core.clock import BadInstant, parse_instant
from konveyer.execution.releases.lead_time import lead_time, lead_times, working_days
from konveyer.execution.releases.period import start_of
from konveyer.execution.releases.records import Release, StageRecord

HOUR_US = 3_600_000_000


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2026-11-23T09:00Z", "2026-11-23T21:00Z", 0.5),  # within a Monday
        ("2026-11-23T09:00Z", "2026-11-25T09:00Z", 2.0),
        ("2026-11-20T12:00Z", "2026-11-23T12:00Z", 1.0),  # Friday noon to Monday noon
        ("2026-11-21T08:00Z", "2026-11-22T20:00Z", 0.0),  # a weekend
        ("2026-11-20T00:00Z", "2026-12-04T00:00Z", 10.0),
        ("2026-11-23T12:00Z", "2026-11-23T09:00Z", 0.0),
    ],
)
def test_only_monday_to_friday_counts(start: str, end: str, days: float) -> None:
    assert working_days(parse_instant(start), parse_instant(end)) == pytest.approx(days)


def stage(name: str, waited_s: float, worked_s: float, verdict: str = "passed") -> StageRecord:
    return StageRecord(
        stage=name,
        verdict=verdict,
        rule="",
        measured="",
        limit="",
        evidence={},
        by="",
        waited_s=waited_s,
        worked_s=worked_s,
        started_us=0,
        finished_us=int((waited_s + worked_s) * 1e6) or 1,
    )


def release(name: str, *stages: StageRecord, ended_us: int | None, **changes: Any) -> Release:
    values = {
        "id": name,
        "application": "scoring",
        "api_version": 1,
        "digest": "",
        "author": "ana",
        "state": "live",
        "reason": None,
        "required": [],
        "attempt": 1,
        "opened_us": 0,
        "ended_us": ended_us,
        "waiting_s": 0.0,
        "stages": list(stages),
    }
    return Release(**{**values, **changes})


def test_waiting_and_working_are_told_apart_per_stage() -> None:
    fast = release("a", stage("review", 60, 0), stage("production", 0, 2), ended_us=10)
    slow = release(
        "b",
        stage("review", 3600, 0),
        stage("canary", 0, 0, "not required"),
        stage("production", 0, 90_000),
        ended_us=20,
    )
    stopped = release("c", stage("checks", 0, 5, "failed"), ended_us=15, state="failed")
    late = release("d", stage("production", 0, 1), ended_us=999)
    under_way = release("e", stage("review", 1, 0), ended_us=None)
    found = lead_times(
        [fast, slow, stopped, late, under_way], since_us=5, until_us=100, goal_days=1
    )
    assert [(one.release, round(one.days, 3)) for one in found.arrivals] == [
        ("b", 1.042),
        ("a", 0.0),
    ]
    assert (found.within_goal, found.stopped) == (1, 1)
    stages = {one.stage: one for one in found.stages}
    assert list(stages) == ["review", "production"]
    assert (stages["review"].waited_s, stages["review"].worked_s) == (1830, 0)
    assert stages["review"].longest_s == 3600
    assert lead_time(fast).total_s == 62
    waits = release("f", stage("checks", 1, 2), ended_us=None, state="review", waiting_s=3600.0)
    assert (lead_time(waits).waited_s, lead_time(waits).worked_s) == (3601, 2)


def test_without_arrivals_there_is_no_median() -> None:
    found = lead_times([], since_us=0, until_us=1, goal_days=5)
    assert (found.median_days, found.arrivals, found.stages) == (None, [], [])


def test_a_period_begins_a_while_ago_or_at_a_time() -> None:
    assert start_of("2h", 5 * HOUR_US) == 3 * HOUR_US
    assert start_of("2026-01-01", 0) == parse_instant("2026-01-01T00:00:00Z")
    with pytest.raises(BadInstant) as caught:
        start_of("banana", 0)
    assert "90d" in (caught.value.hint or "")
