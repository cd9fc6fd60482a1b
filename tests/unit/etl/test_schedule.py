"""Which views are due: once in each period of their refresh, whatever was computed and how."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konveyer import Aggregation, Entity, FeatureView, JoinKey, Source
from konveyer.access.people import BadPersonName, add_person
from konveyer.access.roles import Role
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.etl.flow import EtlPayload, etl_flow
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.etl.schedule import DueViews, scheduled_views
from konveyer.feature_store.etl.vacuum import plan_vacuum, vacuum
from konveyer.pipeline.flow import Run
from konveyer.pipeline.schedule import is_due, next_us, period_us
from tests.desk import ADMIN, Desk
from tests.unit.etl.store import PlainSteps

CLIENT = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
PAYMENTS = Source(name="payments", path="payments.parquet", event_time="at")
DAILY = FeatureView(
    name="daily",
    entity="client",
    source="payments",
    aggregations=(Aggregation(function="count", over="7d"),),
)
HOURLY = replace(DAILY, name="hourly", refresh="1h")
MIDNIGHT = "2026-01-10T00:00:00Z"


class Workday:
    """A desk whose clock a test moves, and which a schedule looks at."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.now_us = desk, parse_instant(MIDNIGHT)
        self.held: list[tuple[str, str]] = []
        self._due = DueViews(desk.services.catalog, lambda _session: self.held, lambda: self.now_us)

    def at(self, clock: str) -> None:
        self.now_us = parse_instant(f"2026-01-{clock}Z")

    def due(self, *under_way: Run) -> list[str]:
        return sorted(order(run).views[0].view for run in self._due(under_way))

    def run_due(self) -> list[Run]:
        runs = self._due(())
        for run in runs:
            self.run(run)
        return runs

    def run(self, run: Run) -> None:
        etl_flow(self.desk.services).run(PlainSteps(), run.payload)

    def by_hand(self, *views: str) -> None:
        with self.desk.services.catalog.reading() as session:
            plan = plan_etl(session, ADMIN, views, as_of_us=self.now_us)
        self.run(plan.run)


def order(run: Run) -> EtlPayload:
    return msgspec.convert(run.payload, EtlPayload)


@pytest.fixture
def day(desk: Desk) -> Workday:
    rows = pa.table({"client": [1, 2], "at": pa.array([0, 0], pa.timestamp("us", "UTC"))})
    pq.write_table(rows, desk.root / "payments.parquet")
    desk.apply(CLIENT, PAYMENTS, DAILY, HOURLY)
    return Workday(desk)


def test_each_view_is_due_once_in_each_period_of_its_refresh(day: Workday) -> None:
    assert day.due() == ["daily", "hourly"]
    day.run_due()
    assert day.due() == []
    day.at("10T00:59:59")
    assert day.due() == []
    day.at("10T01:00:00")
    assert day.due() == ["hourly"]
    day.run_due()
    day.at("11T00:00:00")
    assert day.due() == ["daily", "hourly"]


def test_missed_periods_are_not_made_up_for(day: Workday) -> None:
    day.run_due()
    day.at("10T05:30:00")
    assert [run.id[-16:] for run in day.run_due()] == ["20260110T050000Z"]
    assert day.due() == []


def test_the_same_period_gives_the_same_run_also_after_a_restart(day: Workday) -> None:
    first = day._due(())
    day.at("10T00:10:00")
    again = Workday(day.desk)
    again.at("10T00:10:00")
    assert [run.id for run in again._due(())] == [run.id for run in first]
    day.at("10T01:00:00")
    assert {run.id for run in day._due(())} & {run.id for run in first} == {first[0].id}


def test_what_is_computed_or_going_to_be_is_left_out(day: Workday) -> None:
    with day.desk.services.catalog.reading() as session:
        planned = plan_etl(session, ADMIN, ["daily"], as_of_us=day.now_us).run
    assert day.due(planned) == ["hourly"]
    release = Run(flow="release", id="rel-1", payload={"release": "rel-1"})
    assert day.due(release) == ["daily", "hourly"]


def test_a_run_that_was_killed_keeps_its_view_from_another(day: Workday) -> None:
    class Killed(BaseException):
        pass

    class Steps(PlainSteps):
        def step(self, name: str, work: object) -> object:
            if name.startswith("check"):
                raise Killed
            return super().step(name, work)  # type: ignore[arg-type]

    hourly = next(run for run in day._due(()) if order(run).views[0].view == "hourly")
    with pytest.raises(Killed):
        etl_flow(day.desk.services).run(Steps(), hourly.payload)
    day.at("10T02:00:00")
    assert day.due() == ["daily"]
    day.run(hourly)
    assert day.due() == ["daily", "hourly"]


def test_a_persons_run_counts_for_its_period_unless_it_failed(day: Workday) -> None:
    day.at("10T10:15:00")
    day.by_hand("daily")
    assert day.due() == ["hourly"]
    source = day.desk.root / "payments.parquet"
    good = source.read_bytes()
    source.write_bytes(b"damaged")
    with pytest.raises(KonveyerError):
        day.by_hand("hourly")
    assert day.due() == ["hourly"]
    with pytest.raises(KonveyerError):
        day.run_due()
    source.write_bytes(good)
    assert day.due() == []
    day.at("10T11:00:00")
    assert day.due() == ["hourly"]
    day.run_due()
    assert day.desk.runs("hourly")[0].status == "succeeded"


def test_a_changed_view_is_due_at_once(day: Workday) -> None:
    day.run_due()
    day.desk.apply(CLIENT, PAYMENTS, replace(DAILY, refresh="12h"), HOURLY)
    assert day.due() == ["daily"]


def test_versions_that_are_served_go_on_being_computed(day: Workday) -> None:
    day.run_due()
    old = day.desk.runs("daily")[0].version
    day.desk.apply(CLIENT, PAYMENTS, HOURLY)
    day.at("11T00:00:00")
    assert day.due() == ["hourly"]
    day.held = [("daily", old)]
    assert day.due() == ["daily", "hourly"]


def test_a_version_that_vacuum_removed_is_due_at_once_when_it_comes_back(day: Workday) -> None:
    first, _ = day.run_due()
    day.desk.apply(CLIENT, PAYMENTS, HOURLY)
    assert day.due() == []
    services, pins = day.desk.services, lambda _session: ()
    plan = plan_vacuum(services.catalog, ADMIN, services.offline, pins, keep_us=0)
    vacuum(services.catalog, ADMIN, services.offline, services.online, pins, plan)
    day.desk.apply(CLIENT, PAYMENTS, DAILY, HOURLY)
    (again,) = day.run_due()
    assert order(again).views == order(first).views
    assert again.id != first.id
    assert day.desk.readable("daily") is not None
    assert day.due() == []


def test_a_feature_time_that_was_fixed_ahead_does_not_count(day: Workday) -> None:
    day.at("30T00:00:00")
    day.by_hand()
    day.at("10T00:00:00")
    assert day.due() == ["daily", "hourly"]


def test_what_is_scheduled_says_who_ran_it_last_and_when_it_is_next(day: Workday) -> None:
    day.run_due()
    day.at("10T00:30:00")
    with day.desk.services.catalog.reading() as session:
        hourly, daily = scheduled_views(session, lambda _session: (), day.now_us)
    assert (hourly.view, hourly.refresh) == ("hourly", "1h")
    assert hourly.next_us == parse_instant("2026-01-10T01:00:00Z")
    assert daily.next_us == parse_instant("2026-01-11T00:00:00Z")
    assert daily.last is not None
    assert (daily.last.person, daily.last.status) == ("schedule", "succeeded")


def test_no_person_is_called_schedule(desk: Desk) -> None:
    with desk.services.catalog.transaction() as session, pytest.raises(BadPersonName):
        add_person(session, ADMIN, "schedule", frozenset({Role.ANALYST}))


@given(
    every_us=st.integers(1, 10**13),
    ticks=st.lists(st.integers(-(10**15), 10**16), min_size=1, max_size=50).map(sorted),
)
def test_nothing_begins_twice_in_a_period(every_us: int, ticks: Sequence[int]) -> None:
    begun: list[int] = []
    for now_us in ticks:
        last_us = begun[-1] if begun else None
        assert (next_us(every_us, last_us, now_us) <= now_us) == is_due(every_us, last_us, now_us)
        if is_due(every_us, last_us, now_us):
            begun.append(now_us)
    periods = [period_us(every_us, one) for one in begun]
    assert all(earlier < later for earlier, later in pairwise(periods))
    assert periods == sorted({period_us(every_us, one) for one in ticks})
