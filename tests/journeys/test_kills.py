"""Processes killed with -9 in the middle: the next start finishes what they began."""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from konveyer.core.settings import load_settings
from konveyer.core.storage import FolderStorage
from konveyer.development.package import pack_run
from konveyer.development.training import find_run
from konveyer.execution.releases.records import load_release
from konveyer.execution.releases.service import open_release
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.feature_store.etl.runs import EtlRun, list_runs
from konveyer.wiring import open_workspace
from tests.support import Shop, node, nodes_up, wait_for

ANA = Actor("ana", frozenset({Role.DATA_SCIENTIST}))


def killed_when(condition: Any, command: list[str], log: Path) -> None:
    """Start `command` and kill -9 it as soon as `condition` holds."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        wait_for(condition, process)
        process.send_signal(signal.SIGKILL)
        process.wait()


def runs(root: Path) -> list[EtlRun]:
    catalog = Catalog(f"sqlite:///{root}/state/catalog.db")
    with catalog.transaction() as session:
        found = list_runs(session)
    catalog.close()
    return found


def test_etl_killed_in_the_middle_is_finished_by_the_next_command(shop: Shop) -> None:
    before = {run.run_id for run in runs(shop.root)}

    def in_the_middle() -> bool:
        mine = [run for run in runs(shop.root) if run.run_id not in before]
        # The next view has begun, so the step of the one before is on record.
        return {run.status for run in mine} == {"succeeded", "running"} and len(mine) < 5

    killed_when(in_the_middle, shop.command("etl", "run"), shop.root / "killed.log")
    done = {run.view: run for run in runs(shop.root) if run.run_id not in before}
    (killed,) = {run.run_id for run in done.values()}
    finished = {view: run for view, run in done.items() if run.status == "succeeded"}
    assert 0 < len(finished) < 5

    shop.run("etl", "run", "demographics")

    after = {run.view: run for run in runs(shop.root) if run.run_id == killed}
    assert len(after) == 5
    assert {run.status for run in after.values()} == {"succeeded"}
    for view, run in finished.items():
        assert after[view] == run, "a finished step must not run again"
    third = runs(shop.root)
    assert len({run.run_id for run in third} - before) == 2


def shop_of_visits(root: Path, definitions: str) -> Shop:
    """A workspace of its own with one visit, and definitions over it that are applied."""
    shop = Shop(root)
    shop.run("init", str(root))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    pq.write_table(pa.table({"client_id": [1], "seen_at": [moment]}), root / "visits.parquet")
    (root / "features" / "visits.py").write_text(definitions)
    shop.run("apply")
    return shop


ENDS_ITS_PROCESS = """
from konveyer import Entity, Feature, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
visits = Source(name="visits", path="visits.parquet", event_time="seen_at")


def of_visits(rows):
    import os

    if len(rows):
        os._exit(9)  # as the kernel does to a process that takes too much memory
    return rows.with_columns(n=rows["client_id"])


heavy = FeatureView(
    name="heavy",
    entity="client",
    source="visits",
    function=of_visits,
    features=(Feature(name="n", dtype="int64"),),
)
light = FeatureView(
    name="light",
    entity="client",
    sql="SELECT client_id, seen_at AS event_time, client_id AS n FROM visits",
    features=(Feature(name="n", dtype="int64"),),
)
"""


@pytest.mark.slow
def test_a_view_that_ends_its_processes_fails_and_keeps_no_other_from_running(
    tmp_path: Path,
) -> None:
    shop = shop_of_visits(tmp_path / "shop", ENDS_ITS_PROCESS)
    command = shop.command("etl", "run", "heavy")
    assert [subprocess.run(command, check=False).returncode for _ in range(3)] == [9] * 3
    # The right definition alone would not help: the next command finishes the killed run first.
    shop.run("etl", "run", "light")
    found = {run.view: run for run in runs(shop.root)}
    assert found["light"].status == "succeeded"
    assert found["heavy"].status == "failed"
    assert found["heavy"].error is not None
    assert found["heavy"].error["code"] == "etl_processes_ended"
    assert "Feature view 'heavy'" in found["heavy"].error["message"]


WAITS = """
from konveyer import Entity, Feature, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
visits = Source(name="visits", path="visits.parquet", event_time="seen_at")


def of_visits(rows):
    import time
    from pathlib import Path

    if len(rows) and not Path("{root}/go").exists():
        Path("{root}/waits").touch()
        time.sleep(120)
    return rows.with_columns(n=rows["client_id"])


slow = FeatureView(
    name="slow",
    entity="client",
    source="visits",
    function=of_visits,
    features=(Feature(name="n", dtype="int64"),),
)
"""


@pytest.mark.slow
def test_a_view_that_people_interrupt_again_and_again_goes_on(tmp_path: Path) -> None:
    shop = shop_of_visits(tmp_path / "shop", WAITS.replace("{root}", str(tmp_path)))
    for _ in range(4):
        with subprocess.Popen(shop.command("etl", "run"), start_new_session=True) as process:
            wait_for((tmp_path / "waits").exists, process)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 130
        (tmp_path / "waits").unlink()
    (tmp_path / "go").touch()
    shop.run("etl", "run")
    assert {run.status for run in runs(shop.root)} == {"succeeded"}


def release_of(root: Path, release: str) -> Any:
    catalog = Catalog(f"sqlite:///{root}/state/catalog.db")
    with catalog.transaction() as session:
        found = load_release(session, release)
    catalog.close()
    return found


def test_a_release_killed_in_the_middle_goes_on_and_passes_no_gate_twice(shop: Shop) -> None:
    release = shop.run("submit", "models/coupon_response", profile="ana")["id"]

    command = shop.command("release", "approve", release, profile="boris")
    killed_when(lambda: in_load(shop.root, release), command, shop.root / "killed.log")
    before = {stage.stage: stage for stage in release_of(shop.root, release).stages}
    assert before["load"].verdict == "running"
    wait_for(lambda: not nodes_up(shop.root, "test"))  # its test node ends with it

    after = shop.run("release", "continue", release, profile="boris")

    assert after["state"] == "live"
    stages = {s["stage"]: s for s in after["stages"] if s["verdict"] != "not required"}
    assert list(stages) == ["checks", "review", "functional", "integration", "load", "production"]
    assert {stage["verdict"] for stage in stages.values()} == {"passed"}
    for passed in ("functional", "integration"):
        assert stages[passed]["finished_us"] == before[passed].finished_us
    assert nodes_up(shop.root, "test") == []


@pytest.mark.slow
def test_ctrl_c_in_a_gate_decides_nothing(shop: Shop) -> None:
    shop.lengthen_load()
    release = shop.run("submit", "models/coupon_response", profile="ana")["id"]
    command = shop.command("release", "approve", release, profile="boris")
    log = shop.root / "interrupted.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True) as process,
    ):
        wait_for(lambda: in_load(shop.root, release), process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
    assert "goes on with it" in log.read_text()
    assert release_of(shop.root, release).state == "load"
    error = shop.error("release", "continue", release, profile="eva")
    assert error["code"] == "not_allowed"
    assert shop.run("release", "continue", release, profile="ana")["state"] == "live"


def in_load(root: Path, release: str) -> bool:
    stages = release_of(root, release).stages
    return bool(stages) and stages[-1].stage == "load"


def test_a_release_whose_run_never_began_goes_on_with_the_next_command(shop: Shop) -> None:
    """As if its process had died between opening it and starting its run."""
    workspace = open_workspace(load_settings(shop.root))
    run, folder = find_run(workspace.workshop.runs, "coupon-response", None)
    bundle = pack_run(run, folder, "ana", workspace.bundles, workspace.workshop.environments)
    with workspace.catalog.transaction() as session:
        release = open_release(session, ANA, bundle)
    workspace.close()
    assert release_of(shop.root, release).state == "checks"
    shop.run("etl", "run", "demographics")
    assert release_of(shop.root, release).state == "review"


def answered(client: httpx.Client, count: int, name: str) -> set[str]:
    ids = {f"{name}-{n}" for n in range(count)}
    for one in ids:
        path = "/coupon-response/v1/predict"
        assert client.post(path, json={"household_id": 1}, headers={"x-request-id": one}).is_success
    return ids


def logged_ids(root: Path) -> set[str]:
    storage = FolderStorage(root / "state")
    return {str(row["request_id"]) for row in read_predictions(storage, "prod")}


def test_a_clean_stop_of_a_node_loses_no_logged_prediction(shop_copy: Shop) -> None:
    command = shop_copy.command("serve", "prod", "--port", "0")
    with node(command, shop_copy.root, "prod") as (url, process):
        with httpx.Client(base_url=url, headers=shop_copy.caller()) as client:
            wait_for(lambda: client.get("/coupon-response/v1").is_success)
            ids = answered(client, 200, "clean")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert ids <= logged_ids(shop_copy.root)


def test_a_killed_node_loses_at_most_the_last_second(shop_copy: Shop) -> None:
    command = shop_copy.command("serve", "prod", "--port", "0")
    with node(command, shop_copy.root, "prod") as (url, process):
        with httpx.Client(base_url=url, headers=shop_copy.caller()) as client:
            wait_for(lambda: client.get("/coupon-response/v1").is_success)
            ids = answered(client, 200, "killed")
            time.sleep(1.0)
            answered(client, 20, "late")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert ids <= logged_ids(shop_copy.root)
    with node(command, shop_copy.root, "prod"):
        assert nodes_up(shop_copy.root, "prod")[0].pid != process.pid
