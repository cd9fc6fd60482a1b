"""Whatever is pushed, repeated, computed and merged in whatever order: online is what plain Python
says, and so is the training set of the run that follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from konveyer import (
    Aggregation,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    JoinKey,
    PushedColumn,
    Source,
)
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock, from_us, parse_instant
from konveyer.feature_store.offline import layout
from konveyer.feature_store.push.accept import Pusher
from konveyer.feature_store.push.compaction import compact
from konveyer.feature_store.sources.segments import locked_pushes
from tests.conftest import ADMIN
from tests.unit.etl.store import Store, opened_store

START_US = parse_instant("2026-01-01T00:00:00Z")
MINUTE_US = 60_000_000
WINDOW_US = 10 * MINUTE_US
CLIENTS = 3
DEFINITIONS = (
    Entity(name="client", join_keys=(JoinKey("bank", "string"), JoinKey("client", "int64"))),
    Source(
        name="payments",
        pushed=(
            PushedColumn("bank", "string"),
            PushedColumn("client", "int64"),
            PushedColumn("paid_at", "timestamp"),
            PushedColumn("amount", "int64"),
        ),
        event_time="paid_at",
    ),
    Source(
        name="large",
        sql="SELECT bank, client, paid_at, created_time, amount FROM payments WHERE amount > 1 "
        "UNION ALL SELECT 'other' AS bank, client, paid_at, created_time, amount FROM payments",
        event_time="paid_at",
        created_time="created_time",
    ),
    FeatureView(
        name="spend",
        entity="client",
        source="large",
        aggregations=(
            Aggregation(function="count", over="unbounded", name="times"),
            Aggregation(column="amount", function="sum", over="10m", name="spent"),
            Aggregation(column="amount", function="last", over="unbounded", name="last"),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="newest",
        entity="client",
        sql="SELECT bank, client, paid_at AS event_time, created_time, amount FROM payments",
        features=(Feature(name="amount", dtype="int64"),),
        accuracy="exact",
    ),
    FeatureService(name="scoring", features=("spend", "newest")),
)

rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.integers(0, CLIENTS - 1),
        st.sampled_from([0, 1, 2, 5, 15]),  # minutes before the example began
        st.one_of(st.none(), st.integers(0, 4)),
    ),
    min_size=1,
    max_size=4,
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), rows),
        st.tuples(st.just("again"), st.integers(0, 5)),
        st.tuples(st.just("etl"), st.integers(0, 3)),
        st.tuples(st.sampled_from(["merge", "restart", "wait"]), st.none()),
    ),
    min_size=2,
    max_size=10,
)


@dataclass
class World:
    """The store of all examples, each with clients of its own; time only goes on."""

    store: Store
    now_us: int = START_US
    ran_us: int = 0
    examples: int = 0
    pusher: Pusher | None = None

    def push(self, given: Any, key: str) -> Any:
        # A process has one clock: a new one for each moment, around what the old one remembers.
        if self.pusher is None:
            self.pusher = Pusher(self.store.services, FeatureClock(0), held=lambda _s: ())
        self.pusher._clock = FeatureClock(self.now_us)
        return self.pusher.push(ADMIN, "payments", given, key=key)

    def etl(self, as_of_us: int) -> None:
        self.ran_us = max(as_of_us, self.ran_us)
        replace(self.store, now_us=self.ran_us).etl()

    def merge(self) -> None:
        folder = self.store.services.pushed
        with locked_pushes(folder):
            compact(self.store.services.catalog, folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root: Path = tmp_path_factory.mktemp("pushes")
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    catalog.migrate()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "ROWS_PER_BUCKET", 40)
        with opened_store(catalog, ADMIN, root, now="2026-01-01T00:00:00Z") as store:
            store.apply(*DEFINITIONS)
            yield World(store)
    catalog.close()


@dataclass
class Oracle:
    """Rows as (bank, client, event, created, amount), and when each entity was last looked at."""

    rows: list[tuple[str, int, int, int, int | None]] = field(default_factory=list)
    looked_us: dict[str, dict[tuple[str, int], int]] = field(
        default_factory=lambda: {"spend": {}, "newest": {}}
    )

    def of(self, view: str, who: tuple[str, int], until_us: int) -> list[Any]:
        bank, client = who
        mine = [
            (event, created, amount is None, amount or 0, amount)
            for b, c, event, created, amount in self.rows
            if c == client and event <= until_us and created <= until_us
            if (b == bank if view == "newest" or bank != "other" else True)
            if view == "newest" or bank == "other" or (amount is not None and amount > 1)
        ]
        return sorted(mine)

    def look(self, view: str, rows: list[Any], at_us: int) -> None:
        for bank, client, _event, _created, amount in rows:
            looked = self.looked_us[view]
            if view == "newest":
                looked[bank, client] = at_us
                continue
            looked["other", client] = at_us
            if amount is not None and amount > 1:
                looked[bank, client] = at_us

    def etl(self, as_of_us: int) -> None:
        tail = [row for row in self.rows if row[3] > as_of_us]
        for view, looked in self.looked_us.items():
            for who, at_us in looked.items():
                looked[who] = max(at_us, as_of_us)
            if tail:
                self.look(view, tail, max(row[3] for row in self.rows))

    def expected(self, who: tuple[str, int], at_us: int | None = None) -> tuple[Any, ...] | None:
        """What is online; with `at_us`, what a training set has at that moment."""
        looked = {view: at_us or times.get(who) for view, times in self.looked_us.items()}
        if looked["spend"] is None and looked["newest"] is None:
            return None
        spend = self.of("spend", who, looked["spend"] or 0)
        newest = self.of("newest", who, looked["newest"] or 0)
        since_us = (looked["spend"] or 0) - WINDOW_US
        recent = [one[4] for one in spend if one[0] > since_us and one[4] is not None]
        known = [one[4] for one in spend if one[4] is not None]
        return (
            len(spend),
            sum(recent) if recent else None,
            known[-1] if known else None,
            newest[-1][4] if newest else None,
        )


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_online_and_training_are_what_plain_python_says(
    world: World, steps: list[tuple[str, Any]]
) -> None:
    world.examples += 1
    first = world.examples * CLIENTS
    oracle, sent = Oracle(), list[Any]()
    # What others left of this moment is behind.
    world.now_us += MINUTE_US
    began_us = world.now_us
    everybody = [(b, first + c) for b in ("a", "b", "other") for c in range(CLIENTS)]

    def compare() -> None:
        assert world.store.online(*everybody) == [oracle.expected(who) for who in everybody]

    for number, (step, argument) in enumerate(steps):
        world.now_us += MINUTE_US
        if step == "push":
            pushed = [
                (bank, first + client, began_us - ago * MINUTE_US, amount)
                for bank, client, ago, amount in argument
            ]
            key = f"{world.examples}-{number}"
            names = ("bank", "client", "paid_at", "amount")
            content = [
                dict(zip(names, (b, c, from_us(event), amount), strict=True))
                for b, c, event, amount in pushed
            ]
            sent.append((content, key, world.push(content, key)))
            new = [(b, c, event, world.now_us, amount) for b, c, event, amount in pushed]
            oracle.rows += new
            for view in oracle.looked_us:
                oracle.look(view, new, world.now_us)
        elif step == "again" and sent:
            content, key, answer = sent[argument % len(sent)]
            assert world.push(content, key) == answer
        elif step == "etl":
            world.etl(world.now_us - argument * MINUTE_US)
            oracle.etl(world.ran_us)
        elif step == "merge":
            world.merge()
        elif step == "restart":
            world.pusher = None
        compare()
    world.now_us += MINUTE_US
    world.etl(world.now_us)
    oracle.etl(world.ran_us)
    compare()
    at = pa.array([world.now_us] * len(everybody), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    banks, clients = zip(*everybody, strict=True)
    labels = pa.table({"bank": banks, "client": pa.array(clients, pa.int64()), "at": at})
    table = world.store.training_set(labels).table.select(["times", "spent", "last", "amount"])
    nobody = (0, None, None, None)
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        oracle.expected(who, world.now_us) or nobody for who in everybody
    ]
