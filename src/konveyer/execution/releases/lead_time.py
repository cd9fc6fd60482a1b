"""Lead time: from submission to production, waiting and working apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from statistics import median

from konveyer.core.clock import from_us
from konveyer.execution.releases.machine import STAGES, State
from konveyer.execution.releases.records import NOT_REQUIRED, Release, StageRecord

_WORKING = range(5)  # Monday to Friday
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadTime:
    """Seconds that a release waited (for people and for its turn) and was worked on."""

    waited_s: float
    worked_s: float

    @property
    def total_s(self) -> float:
        return self.waited_s + self.worked_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """A stage over several releases: the half of them took at most so long."""

    stage: str
    releases: int
    waited_s: float
    worked_s: float
    longest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A release that reached production, and the working days that it took."""

    release: str
    application: str
    api_version: int
    author: str
    live_us: int
    days: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadTimes:
    """The releases that reached production in a period, against the goal in working days.

    `stopped` ended elsewhere. `arrivals` are newest first; `median_days` is None without any.
    """

    since_us: int
    until_us: int
    goal_days: float
    arrivals: list[Arrival]
    within_goal: int
    median_days: float | None
    stopped: int
    stages: list[StageTime]


def lead_time(release: Release) -> LeadTime:
    """Until now, or until it ended."""
    return LeadTime(
        waited_s=release.waiting_s + sum(stage.waited_s for stage in release.stages),
        worked_s=sum(stage.worked_s for stage in release.stages),
    )


def working_days(start_us: int, end_us: int) -> float:
    """Whole days of 24 hours between two instants, Monday to Friday in UTC.

    >>> friday, monday = 1_767_355_200_000_000, 1_767_614_400_000_000  # both at noon
    >>> working_days(friday, monday)
    1.0
    """
    start, end = from_us(start_us), from_us(max(start_us, end_us))
    seconds, day = 0.0, start.date()
    while day <= end.date():
        if day.weekday() in _WORKING:
            midnight = datetime.combine(day, time(), UTC)
            inside = min(end, midnight + timedelta(days=1)) - max(start, midnight)
            seconds += inside.total_seconds()
        day += timedelta(days=1)
    return seconds / _DAY_S


def lead_times(
    releases: Sequence[Release], *, since_us: int, until_us: int, goal_days: float
) -> LeadTimes:
    """Of those that ended in the period. A stage counts where it was required and has ended."""
    ended = [one for one in releases if since_us <= (one.ended_us or -1) <= until_us]
    lived = [(one, live_us) for one in ended if (live_us := _live_us(one)) is not None]
    arrivals = [
        Arrival(
            release=one.id,
            application=one.application,
            api_version=one.api_version,
            author=one.author,
            live_us=live_us,
            days=working_days(one.opened_us, live_us),
        )
        for one, live_us in sorted(lived, key=lambda pair: -pair[1])
    ]
    stages = [_stage(stage, [one for one, _ in lived]) for stage in STAGES]
    return LeadTimes(
        since_us=since_us,
        until_us=until_us,
        goal_days=goal_days,
        arrivals=arrivals,
        within_goal=sum(arrival.days <= goal_days for arrival in arrivals),
        median_days=median(a.days for a in arrivals) if arrivals else None,
        stopped=len(ended) - len(lived),
        stages=[stage for stage in stages if stage is not None],
    )


def _live_us(release: Release) -> int | None:
    """When production took it up; None when it never did."""
    found = (s for s in release.stages if s.stage == State.PRODUCTION and s.verdict == "passed")
    return next((stage.finished_us for stage in found), None)


def _stage(stage: State, releases: Sequence[Release]) -> StageTime | None:
    took: list[StageRecord] = [
        record
        for release in releases
        for record in release.stages
        if record.stage == stage and record.verdict != NOT_REQUIRED and record.finished_us
    ]
    if not took:
        return None
    return StageTime(
        stage=str(stage),
        releases=len(took),
        waited_s=median(record.waited_s for record in took),
        worked_s=median(record.worked_s for record in took),
        longest_s=max(record.waited_s + record.worked_s for record in took),
    )
