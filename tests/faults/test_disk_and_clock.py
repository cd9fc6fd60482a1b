"""A disk that is full, and a clock that jumps."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Entity,
    FeatureService,
    FeatureView,
    JoinKey,
    PushedColumn,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.bundle.store import Bundle
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.label_files import label_files
from konveyer.feature_store.datamart.label_query import queried_labels
from konveyer.feature_store.datamart.training_set import entity_frame, explain_training_set
from konveyer.feature_store.offline import layout
from konveyer.feature_store.online.lmdb import LmdbOnlineStore
from tests.desk import opened_desk
from tests.serving_nodes import Load, kill, rows_logged, serving, wait_for_bundle
from tests.serving_space import ServingSpace
from tests.support import Shop, wait_for
from tests.unit.etl.store import Store, opened_store
from tests.unit.push.till import DEFINITIONS, PAYMENTS, opened_till, payment

PATH = "/scoring/v1/predict"


@pytest.fixture
def full_disk(space: ServingSpace) -> Iterator[Path]:
    """The prediction log is on a disk of its own, of eight megabytes."""
    with small_disk(space.state / "predictions") as folder:
        yield folder


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("a disk can be mounted by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(filler: Path) -> None:
    """Until its disk has no room, or none again."""
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def lost(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(
        float(line.split()[-1])
        for line in lines
        if "konveyer_prediction_log_lost_total" in line[:40]
    )


def test_a_full_disk_costs_rows_of_the_log_and_no_answer(
    space: ServingSpace, full_disk: Path
) -> None:
    with serving(space, processes=1) as node, node.client() as client:
        filler = full_disk / "filler"
        filler.write_bytes(bytes(7_700_000))
        with Load(node.url) as load:
            wait_for(lambda: "cannot be written" in node.log())
            load.more(1000)
            assert load.statuses == {200}
        assert load.broken == []
        filler.unlink()
        client.post(PATH, json={"client_id": 1}, headers={"x-request-id": "after"})
        wait_for(lambda: any(row["request_id"] == "after" for row in rows_logged(space.root)))
        waited = {row["request_id"] for row in rows_logged(space.root)}
        # What waited in memory was written when there was room again; none of it twice.
        assert set(load.ids) <= waited
        assert lost(client) == 0


def test_a_process_that_is_killed_on_a_full_disk_comes_again(
    space: ServingSpace, second: Bundle, tmp_path: Path
) -> None:
    """All that the node writes is on that disk."""
    with small_disk(tmp_path / "disk") as disk:
        shutil.move(space.state, disk)
        space.state.symlink_to(disk / "state")
        with serving(space, processes=2) as node, node.client() as client:
            filler = disk / "filler"
            fill(filler)
            with Load(node.url) as load:
                load.more(200)
                (victim, _) = node.processes()
                kill(victim)

                def is_back() -> bool:
                    fill(filler)  # the end of a process makes room
                    return node.log().count("now serving") == 3

                wait_for(is_back)
                wait_for(lambda: client.get("/health/ready").is_success)
                load.more(500)
            assert load.statuses == {200}
            assert len(load.broken) <= load.connections
            assert node.log().count("it starts again in") == 1
            filler.unlink()
            space.desire(second)
            wait_for_bundle(node, second.digest)


def test_a_command_on_a_full_disk_says_so_and_works_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shop = Shop(disk / "shop")
        shop.run("init", str(shop.root))
        shop.run("people", "add", "ana", "--role", "analyst")
        filler = disk / "filler"
        fill(filler)
        error = shop.error("people", "list")
        assert "its disk works and has room" in error["hint"]
        os.truncate(filler, filler.stat().st_size - 40_960)  # enough to look, not to write
        shop.run("people", "list")
        error = shop.error("people", "add", "boris", "--role", "analyst")
        assert error["code"] == "disk_full", error
        filler.unlink()
        shop.run("people", "add", "boris", "--role", "analyst")


CLIENTS = 600
CLIENT = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="2d", name="spent"),),
    accuracy="exact",
)


@pytest.fixture
def store(admin: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """What each client spends, in several buckets."""
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", CLIENTS // 2)
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    with opened_store(catalog, admin, tmp_path, now="2026-01-02T00:00:00Z") as store:
        write_payments(store, 1)
        store.apply(
            CLIENT,
            Source(name="payments", path="payments.parquet", event_time="paid_at"),
            SPEND,
            FeatureService(name="scoring", features=("spend",)),
        )
        yield store
    catalog.close()


def write_payments(store: Store, amount: int) -> None:
    clients = np.arange(CLIENTS)
    paid_at = pa.array(np.full(CLIENTS, 1_767_225_600_000_000), pa.timestamp("us", tz="UTC"))
    table = pa.table({"client": clients, "paid_at": paid_at, "amount": clients * amount})
    pq.write_table(table, store.services.root / "payments.parquet")


def spent(store: Store) -> list[int]:
    """By each client, as a training set has it, which is what is online."""
    at = pa.array(np.full(CLIENTS, store.now_us), pa.timestamp("us", tz="UTC"))
    labels = pa.table({"client": np.arange(CLIENTS), "at": at})
    trained: list[int] = store.training_set(labels).table["spent"].to_pylist()
    assert store.online(*((client,) for client in range(CLIENTS))) == [(n,) for n in trained]
    return trained


def test_a_table_that_a_full_disk_does_not_take_stays_as_it_was(
    store: Store, tmp_path: Path
) -> None:
    """However much room there is: for nothing, for some of the files, for all but the commit."""
    with small_disk(tmp_path / "offline") as disk:
        store.etl()
        before = spent(store)
        write_payments(store, 3)
        filler = disk / "filler"
        fill(filler)
        files = sorted(disk.rglob("*.parquet"))
        for failures in range(30):  # noqa: B007 - counted
            try:
                store.etl()
                break
            except KonveyerError as error:
                (said,) = error.detail.values()
            assert isinstance(said, dict)
            assert said["code"] == "offline_write_failed", said
            assert "The table of 'spend' could not be written: " in said["message"]
            assert "see that the disk has room" in said["hint"]
            assert spent(store) == before
            assert sorted(disk.rglob("*.parquet")) == files
            os.truncate(filler, filler.stat().st_size - 4096)
        assert failures > 2
        assert spent(store) == [client * 3 for client in range(CLIENTS)]


def test_records_that_a_full_disk_does_not_take_stay_as_they_were(
    store: Store, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "online") as disk:
        online = LmdbOnlineStore(disk)
        store = replace(store, services=replace(store.services, online=online))
        store.etl()
        before = spent(store)
        write_payments(store, 3)
        filler = disk / "filler"
        fill(filler)
        with pytest.raises(KonveyerError, match="The online store cannot be written") as caught:
            store.etl()
        (said,) = caught.value.detail.values()
        assert isinstance(said, dict)
        assert said["code"] == "online_store_unavailable"
        assert "see that the disk has room" in said["hint"]
        assert spent(store) == before
        filler.unlink()
        store.etl()
        assert spent(store) == [client * 3 for client in range(CLIENTS)]
        online.close()


@contextmanager
def read_on_a_small_disk(root: Path) -> Iterator[Path]:
    """What is read and built below `root` is on a disk of its own."""
    with small_disk(root / "disk") as disk:
        (root / "state").mkdir(exist_ok=True)
        for name in ("state/reading", "training_sets"):
            (disk / name).mkdir(parents=True)
            (root / name).symlink_to(disk / name)
        yield disk


def test_rows_of_a_source_that_a_full_disk_does_not_take_are_told_with_it(tmp_path: Path) -> None:
    """However much room there is: for no file, for some of the rows, for all but the end."""
    rows = [f"{client},2026-01-01,{client / 7}" for client in range(4000)]
    (tmp_path / "payments.csv").write_text("\n".join(["client,paid_at,amount", *rows, ""]))
    columns = {"client": "int64", "paid_at": "timestamp", "amount": "float64"}
    with opened_desk(tmp_path) as desk, read_on_a_small_disk(tmp_path) as disk:
        desk.apply(
            CLIENT,
            Source(name="payments", path="payments.csv", columns=columns, event_time="paid_at"),
            SPEND,
        )
        filler = disk / "filler"
        fill(filler)
        for failures in range(60):  # noqa: B007 - counted
            try:
                desk.etl()
                break
            except KonveyerError:
                said = desk.runs("spend")[0].error
            assert said is not None
            assert said["code"] == "source_read_failed", said
            assert "Feature view 'spend': The rows of source 'payments'" in said["message"]
            assert "see that the disk has room" in said["hint"]
            assert desk.staged() == []
            os.truncate(filler, filler.stat().st_size - 4096)
        assert failures > 5
        assert len(desk.rows("spend", "client")) == 4000


def test_pushed_rows_that_a_full_disk_does_not_take_are_told_with_their_source(
    admin: Actor, tmp_path: Path
) -> None:
    """They are written again where the source has another column since."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    with read_on_a_small_disk(tmp_path) as disk, opened_till(catalog, admin, tmp_path) as till:
        till.push([payment(1, "30T12:00")], key="a")
        wider = replace(PAYMENTS, pushed=(*PAYMENTS.pushed, PushedColumn("city", "string")))
        till.store.apply(*(wider if one is PAYMENTS else one for one in DEFINITIONS))
        filler = disk / "filler"
        fill(filler)
        with pytest.raises(KonveyerError) as caught:
            till.store.etl("spend")
        (said,) = caught.value.detail.values()
        assert isinstance(said, dict)
        assert said["code"] == "source_read_failed", said
        assert "Feature view 'spend': The rows of source 'payments'" in said["message"]
        filler.unlink()
        till.store.etl("spend")
    catalog.close()


def test_training_sets_and_labels_that_a_full_disk_does_not_take(
    store: Store, tmp_path: Path
) -> None:
    services, moments_us = store.services, np.array([store.now_us])
    catalog, engine, offline = services.catalog, services.engine, services.offline
    at = pa.array(np.full(CLIENTS, store.now_us), pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"client": np.arange(CLIENTS), "at": at}), tmp_path / "labels.parquet")
    labels = label_files(tmp_path / "labels.parquet")

    def explained() -> None:
        explain_training_set(
            catalog,
            store.admin,
            engine,
            offline,
            service="scoring",
            labels=labels,
            timestamp="at",
            folder=store.training_sets,
        )

    def every() -> None:
        with entity_frame(
            catalog,
            engine,
            offline,
            service="scoring",
            moments_us=moments_us,
            staging=services.places.staging,
        ) as frame:
            assert frame.num_rows == CLIENTS

    def asked() -> None:
        sql = "SELECT client, paid_at AS at FROM payments"
        with queried_labels(catalog, store.admin, engine, services.places, sql) as frame:
            assert frame.num_rows == CLIENTS

    with read_on_a_small_disk(tmp_path) as disk:
        store.etl()
        built = store.training_set(labels)

        def rebuilt() -> None:
            assert store.rebuilt(built, labels).num_rows == CLIENTS

        filler = disk / "filler"
        fill(filler)
        for call in (explained, every, asked, rebuilt):
            with pytest.raises(KonveyerError, match="could not be written below") as caught:
                call()
            assert caught.value.code == "training_set_not_written", call
            assert "see that the disk has room" in str(caught.value.hint)
        filler.unlink()
        for call in (explained, every, asked, rebuilt):
            call()


def test_what_memory_does_not_hold_is_lost_and_counted(tmp_path: Path) -> None:
    """In this process, since a hundred thousand requests take a while."""
    from konveyer.execution.serving import prediction_log
    from konveyer.execution.serving.metrics import LOG_LOST
    from konveyer.execution.serving.prediction_log import PredictionLog
    from tests.predictions import prediction

    row = prediction()
    folder = tmp_path / "log"
    log = PredictionLog(folder)
    folder.rmdir()
    folder.touch()  # nothing can be written there any more
    before = LOG_LOST._value.get()
    for _ in range(prediction_log.MOST_WAITING + 5000):
        log.add(row)
    dropped = LOG_LOST._value.get() - before
    assert 0 < dropped <= 5000
    log.close()
    assert LOG_LOST._value.get() - before == prediction_log.MOST_WAITING + 5000


def test_a_clock_that_jumps_stops_nothing(space: ServingSpace, tmp_path: Path) -> None:
    """The wall clock of the node jumps a day ahead and back under load."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    library = _fake_time()
    os.environ |= {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(offset)}
    os.environ |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    try:
        with serving(space, processes=1) as node, Load(node.url, connections=4) as load:
            load.more(100)
            for jump in ("+1d", "-1d", "+0"):
                offset.write_text(jump)
                time.sleep(1.5)
                load.more(100)
        assert load.statuses == {200}
        assert load.broken == []
        assert set(load.ids) <= {row["request_id"] for row in rows_logged(space.root)}
    finally:
        for name in ("LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_NO_CACHE"):
            os.environ.pop(name, None)
        os.environ.pop("FAKETIME_DONT_FAKE_MONOTONIC", None)


def _fake_time() -> str:
    for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return str(path)
    pytest.skip("libfaketime is not installed: apt-get install faketime")
