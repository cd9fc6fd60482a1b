"""A real cluster: a standalone master with two workers, some of which are killed as they work."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from deltalake import DeltaTable

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines import spark as engine_module
from konveyer.feature_store.engines.spark import SparkEngine
from konveyer.feature_store.offline import layout
from tests.conftest import ADMIN
from tests.support import QUICK_SPARK, wait_for
from tests.unit.etl.store import Store, opened_store

JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
ROWS, CLIENTS = 400_000, 1_000
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(
            Aggregation(column="amount", function="sum", over="unbounded", name="spent"),
        ),
        accuracy="exact",
    ),
    FeatureService(name="scoring", features=("spend",)),
)

pytestmark = pytest.mark.spark


class Cluster:
    """Each process leads a group of its own, so that a worker dies with its executors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"spark://127.0.0.1:{port}"
        self._master = self._started("master.Master", "--port", str(port))
        wait_for(lambda: listens(port), self._master)

    def add_worker(self) -> None:
        size = ("--cores", "1", "--memory", "1g", "--work-dir", str(self._folder / "work"))
        self._workers.append(self._started("worker.Worker", *size, self.url))

    def kill_worker(self) -> None:
        kill(self._workers.pop())

    def close(self) -> None:
        for process in (*self._workers, self._master):
            kill(process)

    def _started(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        program = Path(pyspark.__file__).parent / "bin" / "spark-class"
        command = [program, f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1"]
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*map(str, command), "--webui-port", "0", *arguments],
                stdout=log,
                stderr=log,
                env=os.environ
                | {
                    "SPARK_LOCAL_IP": "127.0.0.1",
                    "SPARK_DAEMON_JAVA_OPTS": f"{JAVA} -Dspark.master.rest.enabled=false",
                },
                start_new_session=True,
            )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill(process: "subprocess.Popen[bytes]") -> None:
    # Executors lead no group of their own: they stay in that of their worker.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Work:
    cluster: Cluster
    store: Store
    table: Path

    def versions(self) -> int:
        """How many versions of the table can be seen."""
        folders = list(self.table.glob("*/_delta_log"))
        return DeltaTable(str(folders[0].parent)).version() + 1 if folders else 0

    def files(self) -> set[Path]:
        return set(self.table.rglob("part-*.parquet"))

    def is_right(self) -> bool:
        """Whether the features are what the source says, and no file lies about."""
        at = pa.array([2**50] * CLIENTS, pa.timestamp("us"))
        frame = pa.table({"client": np.arange(CLIENTS), "at": at})
        built = self.store.training_set(frame).table
        source = pq.read_table(self.store.services.root / "payments.parquet")
        sums = source.group_by("client").aggregate([("amount", "sum")]).sort_by("client")
        live = DeltaTable(str(next(self.table.iterdir()))).file_uris()
        return built["spent"].equals(sums["amount_sum"]) and len(live) == 16


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", ROWS // 16)
    monkeypatch.setattr(engine_module, "_PATIENCE_S", 4.0)
    numbers = np.arange(ROWS)
    table = pa.table(
        {
            "client": numbers % CLIENTS,
            "paid_at": pa.array(numbers * 1_000_000, pa.timestamp("us")),
            "amount": numbers,
        }
    )
    pq.write_table(table, tmp_path / "payments.parquet", row_group_size=20_000)
    with ExitStack() as stack:
        cluster = Cluster(tmp_path)
        stack.callback(cluster.close)
        cluster.add_worker()
        cluster.add_worker()
        engine = SparkEngine(
            f"{cluster.url}?spark.executor.memory=512m&{QUICK_SPARK}"
            f"&spark.executor.extraJavaOptions={quote(JAVA)}"
        )
        stack.callback(engine.close)
        catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
        catalog.migrate()
        stack.callback(catalog.close)
        now = "2026-01-01T00:00:00Z"
        store = stack.enter_context(opened_store(catalog, ADMIN, tmp_path, now=now, engine=engine))
        store.apply(*DEFINITIONS)
        yield Work(cluster, store, tmp_path / "offline" / "spend")


def as_soon_as(condition: Callable[[], object], act: Callable[[], None]) -> threading.Thread:
    def watch() -> None:
        wait_for(condition)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def failure_of(act: Callable[[], None]) -> KonveyerError | None:
    try:
        act()
    except KonveyerError as error:
        return error
    return None


@pytest.mark.timeout(900)  # eight JVMs start, one after the other; half a minute on idle cores
def test_workers_killed_at_work_leave_nothing_partial_and_the_run_can_be_repeated(
    work: Work,
) -> None:
    work.store.etl()
    assert (work.versions(), len(work.files())) == (1, 16)
    assert work.is_right()
    before = work.files()

    # One of two: the other takes over, or the run says what happened.
    killer = as_soon_as(lambda: work.files() > before, work.cluster.kill_worker)
    failure = failure_of(work.store.etl)
    killer.join()
    if failure is None:
        assert work.versions() == 2
    else:
        assert "'spend'" in failure.message
        assert work.versions() == 1
        assert work.files() == before
    assert work.is_right()

    # Both: nobody is left to take over.
    versions, before = work.versions(), work.files()
    killer = as_soon_as(lambda: work.files() > before, work.cluster.kill_worker)
    with pytest.raises(KonveyerError, match=r"Feature view 'spend': No Spark worker of spark://"):
        work.store.etl()
    killer.join()
    assert work.versions() == versions
    assert work.files() == before
    with pytest.raises(KonveyerError, match=r"Feature view 'spend': No Spark worker of spark://"):
        work.is_right()

    work.cluster.add_worker()
    work.store.etl()
    assert work.versions() == versions + 1
    assert work.is_right()
