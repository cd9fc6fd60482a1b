"""Zones, and the days on which their clocks change: every time is the instant that it names."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.feature_store.definitions.definition import Definition
from tests.conftest import ADMIN
from tests.unit.etl.store import Store, opened_store

BERLIN = pa.timestamp("us", tz="Europe/Berlin")
NOW = "2026-11-01T00:00:00Z"
ANSWERS = "answers.json"
LABEL = "2026-03-29 02:30:00"
# As a clock in Berlin shows them: 2026-03-29 has no hour from 2 to 3, 2026-10-25 has it twice.
PAYMENTS = {
    "2026-03-29T00:30:00+01:00": 1,
    "2026-03-29T01:59:59.999999+01:00": 2,
    "2026-03-29T03:00:00+02:00": 4,
    "2026-03-30T00:30:00+02:00": 8,
    "2026-10-25T00:30:00+02:00": 16,
    "2026-10-25T02:30:00+02:00": 32,
    "2026-10-25T02:30:00+01:00": 64,
    "2026-10-26T00:30:00+01:00": 128,
}
# For each label what was paid in the hour before, what was paid last, and what had been paid on the
# day in UTC that was over at the last midnight in UTC.
LABELS = {
    "2026-03-29T00:30:00+01:00": (1, 1, None),  # 28 March, 23:30 in UTC
    "2026-03-29T01:59:59.999999+01:00": (2, 2, 1),
    "2026-03-29T03:00:00+02:00": (2 + 4, 4, 1),
    "2026-03-30T01:59:59+02:00": (None, 8, 1),  # still 29 March, 23:59:59
    "2026-03-30T02:00:00+02:00": (None, 8, 2 + 4 + 8),
    "2026-10-25T02:30:00+02:00": (32, 32, 16),  # 00:30
    "2026-10-25T02:30:00+01:00": (64, 64, 16),  # an hour later, when the first one is out
    "2026-10-25T03:29:59+01:00": (64, 64, 16),
    "2026-10-26T00:59:59+01:00": (128, 128, 16),  # still 25 October: its day has 25 hours
    "2026-10-26T01:00:00+01:00": (128, 128, 32 + 64 + 128),
}
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    FeatureView(
        name="hourly",
        entity="client",
        source="payments",
        aggregations=(Aggregation(column="amount", function="sum", over="1h", name="hour"),),
        accuracy="exact",
    ),
    FeatureView(
        name="newest",
        entity="client",
        sql="SELECT client, paid_at AS event_time, amount AS newest FROM payments",
        features=(Feature(name="newest", dtype="int64"),),
        accuracy="exact",
    ),
    FeatureView(
        name="daily",
        entity="client",
        source="payments",
        aggregations=(Aggregation(column="amount", function="sum", over="1d", name="day"),),
        refresh="1d",
    ),
    FeatureService(name="scoring", features=("hourly", "newest", "daily")),
)


def in_berlin(texts: Sequence[str]) -> pa.Array:
    return pa.array([parse_instant(text) for text in texts]).cast(BERLIN)


def from_parquet(root: Path) -> Source:
    clients, amounts = [7] * len(PAYMENTS), list(PAYMENTS.values())
    table = pa.table({"client": clients, "paid_at": in_berlin(list(PAYMENTS)), "amount": amounts})
    pq.write_table(table, root / "payments.parquet")
    return Source(name="payments", path="payments.parquet", event_time="paid_at")


def from_csv(root: Path) -> Source:
    with (root / "payments.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["client", "paid_at", "amount"])
        writer.writerows((7, at, amount) for at, amount in PAYMENTS.items())
    columns = {"client": "int64", "paid_at": "timestamp", "amount": "int64"}
    return Source(name="payments", path="payments.csv", columns=columns, event_time="paid_at")


def features(store: Store, source: Source) -> list[tuple[Any, ...]]:
    """Of each label in turn; the frame's times are those of a clock in Berlin."""
    store.apply(source, *DEFINITIONS)
    store.etl()
    labels = pa.table({"client": [7] * len(LABELS), "at": in_berlin(list(LABELS))})
    built = store.training_set(labels).table
    assert built["at"].cast(pa.int64()).to_pylist() == [parse_instant(text) for text in LABELS]
    return [tuple(row.values()) for row in built.select(["hour", "newest", "day"]).to_pylist()]


@pytest.mark.parametrize("catalog", ["sqlite"], indirect=True)
@pytest.mark.parametrize("made", [from_parquet, from_csv])
def test_hours_that_are_missing_or_come_twice_are_the_instants_that_they_name(
    catalog: Catalog, admin: Actor, tmp_path: Path, made: Callable[[Path], Source]
) -> None:
    with opened_store(catalog, admin, tmp_path, now=NOW) as store:
        assert features(store, made(tmp_path)) == list(LABELS.values())
        assert store.online((7,)) == [(None, 128, None)]


def without_zones() -> tuple[Definition, ...]:
    """The same of a file and of a database, whose times say no zone."""
    types = {"client": "int64", "paid_at": "timestamp", "amount": "int64"}
    places: dict[str, dict[str, Any]] = {
        "file": {"path": "naive.parquet"},
        "base": {"database": "shop", "table": "payments", "columns": types},
    }
    sources = [Source(name=name, event_time="paid_at", **at) for name, at in places.items()]
    days = [
        FeatureView(
            name=f"{name}_days",
            entity="client",
            source=name,
            aggregations=(
                Aggregation(column="amount", function="sum", over="1d", name=f"{name}_day"),
            ),
            refresh="1d",
        )
        for name in places
    ]
    parts = [
        FeatureView(
            name=f"{name}_parts",
            entity="client",
            sql=f"""SELECT client, paid_at AS event_time, hour(paid_at) AS {name}_hour,
                date_trunc('day', paid_at) AS {name}_midnight FROM {name}""",
            features=(
                Feature(name=f"{name}_hour", dtype="int64"),
                Feature(name=f"{name}_midnight", dtype="timestamp"),
            ),
            accuracy="exact",
        )
        for name in places
    ]
    views = (*days, *parts)
    scoring = FeatureService(name="scoring", features=tuple(view.name for view in views))
    return (DEFINITIONS[0], *sources, *views, scoring)


def main(root: Path) -> None:
    """Write down the features of a label without a zone, and those online at its moment."""
    times = ["2026-03-28 23:30:00", LABEL]  # the second is a time that Berlin does not have
    paid_at = pa.array(times).cast(pa.timestamp("us"))
    table = pa.table({"client": [7, 7], "paid_at": paid_at, "amount": [1, 2]})
    pq.write_table(table, root / "naive.parquet")
    with closing(sqlite3.connect(root / "shop.db")) as shop, shop:
        shop.execute("CREATE TABLE payments (client, paid_at, amount)")
        shop.executemany("INSERT INTO payments VALUES (7, ?, ?)", zip(times, [1, 2], strict=True))
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    catalog.migrate()
    with opened_store(catalog, ADMIN, root, now=LABEL) as opened:
        databases = {"shop": f"sqlite:///{root}/shop.db"}
        store = replace(opened, services=replace(opened.services, databases=databases))
        store.apply(*without_zones())
        store.etl()
        built = store.training_set(pa.table({"client": [7], "at": paid_at[1:]})).table
        trained = [
            column.cast(pa.int64())[0].as_py()
            for column in built.drop_columns(["client", "at"]).columns
        ]
        (root / ANSWERS).write_text(json.dumps([trained, *store.online((7,))]))
    catalog.close()


def test_the_zone_of_the_machine_changes_nothing(tmp_path: Path) -> None:
    """Times without a zone are in UTC, wherever the process runs."""
    code = "import sys; from tests.unit.etl.test_zones import *; main(Path(sys.argv[1]))"
    command, there = [sys.executable, "-c", code, str(tmp_path)], {"TZ": "Europe/Berlin"}
    done = subprocess.run(
        command, env=os.environ | there, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    midnight = parse_instant("2026-03-29")
    answer = [1, 1, 2, midnight, 2, midnight]
    assert json.loads((tmp_path / ANSWERS).read_text()) == [answer, answer]
