"""A training set has what was online at each label's time: every day is lived through once more,
with the rows that were known by then and an ETL run over nothing else.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Derived,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    JoinKey,
    Source,
)
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.feature_store.definitions.definition import Definition
from tests.conftest import ADMIN
from tests.support import quick_of
from tests.unit.etl.store import Store, opened_store

START_US = parse_instant("2026-03-25T00:00:00Z")
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
CLIENTS, DAYS = 8, 5
INSTANT = pa.timestamp("us", tz="UTC")
Rows = list[tuple[int, int, int | None, int | None, float | None, str | None]]
SCHEMA = pa.schema(
    [
        ("client", pa.int64()),
        ("paid_at", INSTANT),
        ("known_at", INSTANT),
        ("cents", pa.int64()),
        ("rate", pa.float64()),
        ("shop", pa.string()),
    ]
)
SPEND = FeatureView(
    name="daily",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(column="cents", function="sum", over="3d", name="spent_3d"),
        Aggregation(column="cents", function="max", over="unbounded", name="most"),
        Aggregation(column="rate", function="mean", over="unbounded", name="rate"),
        Aggregation(column="rate", function="stddev", over="36h", name="spread"),
        Aggregation(column="cents", function="stddev", over="3d", name="scatter"),
        Aggregation(column="rate", function="sum", over="3d", name="rates"),
        Aggregation(column="shop", function="first", over="2d", name="first_shop"),
        Aggregation(column="shop", function="last", over="unbounded", name="last_shop"),
        Aggregation(column="shop", function="count_distinct", over="3d", name="shops"),
        Aggregation(function="count", over="1d", name="paid", by="shop", values=("a", "b")),
    ),
    derived=(
        Derived(name="share", operation="ratio", left="paid_a", right="shops"),
        Derived(name="rest", operation="difference", left="most", right="spent_3d"),
    ),
)
NEWEST = FeatureView(
    name="newest_daily",
    entity="client",
    sql="""
        SELECT client, paid_at AS event_time, known_at AS created_time, cents AS newest, shop
        FROM payments
    """,
    features=(Feature(name="newest", dtype="int64"), Feature(name="shop", dtype="string")),
    ttl="36h",
)
VIEWS = tuple(
    one
    for view in (SPEND, NEWEST)
    for one in (
        replace(view, name=f"{view.name}_days", refresh="1d"),
        replace(view, name=f"{view.name}_hours", refresh="6h"),
        replace(view, name=f"{view.name}_exact", accuracy="exact"),
    )
)
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at", created_time="known_at"),
    *VIEWS,
    FeatureService(
        name="scoring",
        features=tuple(
            f"{view.name}:{feature} as {view.name}_{feature}"
            for view in VIEWS
            for feature in view.feature_names
        ),
    ),
)


def payments(random: Random) -> Rows:
    """Some come late, some are corrected later, of some nobody knows when they came."""
    rows: Rows = []
    for _ in range(250):
        client = random.randrange(CLIENTS)
        at = START_US + random.randrange(-4 * 24, DAYS * 24) * HOUR_US
        late = random.choice([0, 0, 1, HOUR_US, random.randrange(3 * DAY_US)])
        known = random.choice([None, *[at + late] * 9])
        if rows and random.random() < 0.2:
            client, at, before = random.choice(rows)[:3]
            known = (at if before is None else before) + random.choice([1, HOUR_US, DAY_US])
        shop = random.choice(["a", "b", "c", None])
        rate = random.choice([None, 0.1, 0.2, 0.7, 1e6])
        rows.append((client, at, known, random.randrange(-(2**55), 2**55), rate, shop))
    return rows


def written(store: Store, rows: Rows) -> None:
    table = pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA
    )
    pq.write_table(table, store.services.root / "payments.parquet")


@pytest.fixture
def store(catalog: Catalog, tmp_path: Path) -> Iterator[Store]:
    end = "2026-03-30T00:00:00Z"
    with opened_store(catalog, ADMIN, tmp_path, now=end) as opened:
        yield opened


@pytest.mark.parametrize("seed", quick_of(range(2), 1))
def test_a_training_set_has_what_was_online_day_by_day(store: Store, seed: int) -> None:
    random = Random(seed)
    rows = payments(random)
    written(store, rows)
    store.apply(*DEFINITIONS)
    asked: list[tuple[int, int, bool]] = []
    online: list[Any] = []
    for day in range(DAYS):
        now_us = START_US + day * DAY_US + random.choice([0, 1, 13 * HOUR_US + 7, DAY_US - 2])
        known = [row for row in rows if (row[1] if row[2] is None else row[2]) <= now_us]
        random.shuffle(known)
        written(store, known)
        lived = replace(store, now_us=now_us)
        lived.etl()
        # Until midnight no refresh of the daily views comes.
        for at_us in (now_us, now_us // DAY_US * DAY_US + DAY_US - 1):
            asked += [(client, at_us, at_us == now_us) for client in range(CLIENTS)]
            online += lived.online(*[(client,) for client in range(CLIENTS)], now_us=at_us)
    written(store, rows)
    store.etl()
    labels = pa.table(
        {
            "client": pa.array([client for client, _, _ in asked], pa.int64()),
            "at": pa.array([at for _, at, _ in asked]).cast(INSTANT),
        }
    )
    trained = store.training_set(labels).table.drop_columns(["client", "at"])
    assert any(row is not None for row in online)
    for then, now, (_, _, fresh) in zip(online, trained.to_pylist(), asked, strict=True):
        was = dict(zip(now, then or [None] * len(now), strict=True))
        for name in now if fresh else [name for name in now if "daily_days" in name]:
            if then is None:
                assert not now[name], name  # nothing, and counts of it
            else:
                assert now[name] == was[name], name
