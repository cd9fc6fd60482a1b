"""`konveyer batch` as people and schedules use it, in processes of their own that are killed."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
from deltalake import DeltaTable

from konveyer.catalog.session import Catalog
from konveyer.execution.batch.runs import list_batch_runs
from tests.journeys.test_kills import killed_when
from tests.support import Shop, wait_for

NOW = "2018-01-01T00:00:00Z"  # the feature time of the workspace


def scores(shop: Shop) -> list[dict[str, Any]]:
    table = DeltaTable(str(shop.root / "scores/coupon-response/v1")).to_pyarrow_table()
    return sorted(table.to_pylist(), key=lambda row: (row["period"], row["household_id"]))


def statuses(shop: Shop) -> list[str]:
    catalog = Catalog(f"sqlite:///{shop.root}/state/catalog.db")
    with catalog.reading() as session:
        found = [run.status for run in list_batch_runs(session)]
    catalog.close()
    return found


def test_every_household_gets_the_score_that_a_node_answers(
    shop_copy: Shop, production: httpx.Client
) -> None:
    planned = shop_copy.run("batch", "run", "coupon-response", "--dry-run")
    assert [period["name"] for period in planned["order"]["periods"]] == [NOW]
    assert not (shop_copy.root / "scores").exists()

    done = shop_copy.run("batch", "run", "coupon-response/v1", profile="boris")
    (period,) = done["periods"]
    assert (period["status"], period["person"]) == ("succeeded", "boris")

    rows = scores(shop_copy)
    assert len(rows) == period["rows"] > 2000
    asked = rows[:: len(rows) // 60]
    body = {"rows": [{"household_id": row["household_id"]} for row in asked]}
    answer = production.post("/coupon-response/v1/predict", json=body).json()
    assert answer["predictions"] == [row["prediction"] for row in asked]

    listed = shop_copy.run("batch", "list")
    assert [(one["live"]["application"], one["every"]) for one in listed] == [
        ("coupon-response", None)
    ]
    assert shop_copy.run("batch", "runs", "--model", "coupon-response")[0]["rows"] == len(rows)
    assert shop_copy.error("batch", "run", "coupon-response", profile="eva")["code"] == (
        "not_allowed"
    )
    assert shop_copy.error("batch", "run", "coupon-respons/v1")["code"] == "model_not_live"


def test_a_run_killed_in_the_middle_goes_on_and_scores_each_period_once(
    shop_copy: Shop, tmp_path: Path
) -> None:
    span = ("--from", "2017-09-01", "--to", "2017-12-01", "--every", "13d")
    command = shop_copy.command("batch", "run", "coupon-response", *span)
    killed_when(lambda: statuses(shop_copy).count("succeeded") == 2, command, tmp_path / "log")
    assert statuses(shop_copy).count("succeeded") < 8
    before = {row["period"] for row in scores(shop_copy)}

    shop_copy.run("etl", "run", "demographics")  # any command goes on with what was left

    assert statuses(shop_copy) == ["succeeded"] * 8
    rows = scores(shop_copy)
    assert len({row["period"] for row in rows}) == 8
    assert before < {row["period"] for row in rows}
    assert len({(row["period"], row["household_id"]) for row in rows}) == len(rows)
    assert list((shop_copy.root / "scores").rglob(".drafts/*")) == []
    assert list((shop_copy.root / "state" / "scoring").iterdir()) == []
    again = shop_copy.run("batch", "run", "coupon-response", *span)
    assert {period["status"] for period in again["periods"]} == {"succeeded"}
    assert scores(shop_copy) == rows


def test_a_table_is_scored_and_shown_with_a_bar(shop_copy: Shop) -> None:
    labels = pq.read_table(shop_copy.root / "data/labels.parquet").slice(0, 100)
    pq.write_table(labels, shop_copy.root / "some.parquet")
    command = [
        one for one in shop_copy.command("batch", "run", "coupon-response") if one != "--json"
    ]
    options = ["--table", "some.parquet", "--timestamp", "label_timestamp"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, cwd=shop_copy.root
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    rows = scores(shop_copy)
    assert len(rows) == 100
    times = {(row["household_id"], row["event_time"]) for row in rows}
    asked = labels.select(["household_id", "label_timestamp"]).to_pylist()
    assert times == {(row["household_id"], row["label_timestamp"]) for row in asked}
    error = shop_copy.error("batch", "run", "coupon-response", "--table", "none.parquet")
    assert error["code"] == "batch_failed"


def test_a_serving_worker_takes_a_run(shop_copy: Shop, tmp_path: Path) -> None:
    command = shop_copy.command("worker")
    with (
        (tmp_path / "worker.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as worker,
    ):
        try:
            catalog = Catalog(f"sqlite:///{shop_copy.root}/state/catalog.db")
            from konveyer.pipeline.run import is_served

            wait_for(lambda: is_served(catalog), worker)
            catalog.close()
            done = shop_copy.run("batch", "run", "coupon-response")
            assert done["periods"][0]["status"] == "succeeded"
        finally:
            worker.terminate()
            worker.wait(20)
