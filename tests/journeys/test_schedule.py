"""ETL that starts by itself while a worker runs, also one that is killed again and again."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.catalog.session import Catalog
from konveyer.feature_store.etl.runs import EtlRun, list_runs
from tests.support import Shop, wait_for

DEFINITIONS = """
from konveyer import Entity, Feature, FeatureView, JoinKey, Source


def slowly(rows):
    import time
    import polars as pl

    if len(rows):
        time.sleep(3)
    return rows.with_columns(paid=pl.col("amount"))


client = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
payments = Source(name="payments", path="payments.parquet", event_time="paid_at")
quick = FeatureView(
    name="quick",
    entity="client",
    sql="SELECT client, paid_at AS event_time, amount AS paid FROM payments",
    features=(Feature(name="paid", dtype="int64"),),
    refresh="3s",
)
slow = FeatureView(
    name="slow",
    entity="client",
    source="payments",
    function=slowly,
    features=(Feature(name="paid", dtype="int64"),),
    refresh="1s",
)
"""


@pytest.fixture
def fresh_shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "shop")
    shop.run("init", str(shop.root))
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    times = pa.array([0], pa.timestamp("us", "UTC"))
    rows = pa.table({"client": [1], "paid_at": times, "amount": [5]})
    pq.write_table(rows, shop.root / "payments.parquet")
    shop.run("apply")
    return shop


@contextmanager
def worker(shop: Shop) -> Iterator["subprocess.Popen[bytes]"]:
    with (
        (shop.root / "worker.log").open("ab") as log,
        subprocess.Popen(shop.command("worker"), stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def runs(shop: Shop, view: str) -> list[EtlRun]:
    """In the order in which they started."""
    catalog = Catalog(f"sqlite:///{shop.root}/state/catalog.db")
    with catalog.reading() as session:
        found = list_runs(session, view=view, limit=100)
    catalog.close()
    return found[::-1]


def has_begun(shop: Shop, view: str, times: int) -> bool:
    return len(runs(shop, view)) >= times


@pytest.mark.slow
def test_views_are_computed_by_themselves_once_in_a_period_through_kills(fresh_shop: Shop) -> None:
    for count in (1, 3):
        with worker(fresh_shop) as process:
            wait_for(partial(has_begun, fresh_shop, "slow", count), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert runs(fresh_shop, "slow")[-1].status == "running"
    with worker(fresh_shop) as process:
        wait_for(partial(has_begun, fresh_shop, "slow", 4), process)
        wait_for(partial(has_begun, fresh_shop, "quick", 4), process)

    for view, period_s in (("slow", 1), ("quick", 3)):
        found = runs(fresh_shop, view)
        assert {run.person for run in found} == {"schedule"}
        periods = [run.as_of_us // (period_s * 1_000_000) for run in found]
        assert len(set(periods)) == len(found)
        # Of those whose worker was killed too, the last one may still be under way.
        assert {run.status for run in found[:-1]} == {"succeeded"}
        for earlier, later in pairwise(found):
            assert earlier.finished_us is not None
            assert earlier.finished_us <= later.started_us


@pytest.mark.slow
def test_the_schedule_tells_what_is_next_and_why_nothing_starts(fresh_shop: Shop) -> None:
    schedule = fresh_shop.run("etl", "schedule")
    assert not schedule["on"]
    assert "konveyer up" in schedule["off_because"]
    assert [one["last"] for one in schedule["views"]] == [None, None]

    settings = fresh_shop.root / "konveyer.toml"
    settings.write_text(settings.read_text() + "\n[etl]\nschedule = false\n")
    with worker(fresh_shop) as process:
        fresh_shop.run("etl", "run", "quick")
        time.sleep(7)
        assert process.poll() is None
        schedule = fresh_shop.run("etl", "schedule")
    assert "schedule = false" in schedule["off_because"]
    (quick,) = (one for one in schedule["views"] if one["view"] == "quick")
    assert quick["last"]["person"] != "schedule"
    assert len(runs(fresh_shop, "quick")) == 1
    assert runs(fresh_shop, "slow") == []


def test_a_fixed_feature_time_has_nothing_to_refresh(fresh_shop: Shop) -> None:
    settings = fresh_shop.root / "konveyer.toml"
    text = settings.read_text()
    fixed = text.replace("[workspace]", '[workspace]\nfeature_time = "2026-01-10T00:00:00Z"', 1)
    settings.write_text(fixed)
    with worker(fresh_shop) as process:
        time.sleep(7)
        assert process.poll() is None
        schedule = fresh_shop.run("etl", "schedule")
    assert "feature_time" in schedule["off_because"]
    assert runs(fresh_shop, "quick") == []
