"""Our side of every bench, through Konveyer's public pieces."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.dataset  # which Arrow loads at the first read, and pandas with it
import pyarrow.parquet as pq

from benchmarks.features.measure import Prepared, Task, run_task
from benchmarks.features.requests import KEY, requests_of
from benchmarks.features.workspace import opened
from konveyer.feature_store.datamart.label_files import labels_at
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.training_set import build_training_set
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.sdk import FeatureStore
from konveyer.wiring import Workspace

SERVICE = "scoring"
SPARK = "spark:local[2]?spark.driver.memory=2g"


def training_set(task: Task) -> Prepared:
    """From the label file to the training set's file, with its manifest and usage records."""
    return _training_set(task, None)


def on_spark(task: Task) -> Prepared:
    """The same on executors."""
    return _training_set(task, SPARK)


def _training_set(task: Task, engine: str | None) -> Prepared:
    stack = ExitStack()
    workspace, actor = stack.enter_context(opened(task.state, engine))
    workspace.engine.query("SELECT 1 AS one")
    services = (workspace.catalog, actor, workspace.engine, workspace.offline)
    _service(workspace)  # loads the SQL dialect that definitions are parsed with

    def operation() -> None:
        built = build_training_set(
            *services,
            service=SERVICE,
            labels=labels_at(task.data / "labels.parquet"),
            timestamp="label_timestamp",
            label=None,
            folder=workspace.training_sets,
        )
        (built.path / "data.parquet").replace(task.answer)

    return Prepared(operation=operation, finish=stack.close)


def publishing(task: Task) -> Prepared:
    """From the offline tables into an empty online store: the publishing steps of an ETL run."""
    # Here, because it loads Polars, whose memory the other benches do not need.
    from benchmarks.features.publishing import publish, unpublish

    shutil.rmtree(task.state / "state/online", ignore_errors=True)
    stack = ExitStack()
    workspace, _ = stack.enter_context(opened(task.state))
    _ = workspace.engine, workspace.offline, workspace.online
    unpublish(workspace)

    def finish() -> None:
        clients, service = _clients(task), _service(workspace)
        rows = _lookup(workspace, service).rows([(client,) for client in clients])
        _write(task, service, clients, rows)
        stack.close()

    return Prepared(operation=lambda: publish(workspace), finish=finish)


def online(task: Task) -> Prepared:
    """The reads of a prediction through the SDK, from a store that was published before."""
    stack = ExitStack()
    store = stack.enter_context(FeatureStore(task.state))
    calls = [[{KEY: one} for one in call] for call in requests_of(task.bench, _clients(task))]
    store.online(SERVICE, calls[0])
    rows: list[dict[str, object] | None] = []

    def operation() -> None:
        for call in calls:
            rows.extend(store.online(SERVICE, call))

    def finish() -> None:
        with opened(task.state) as (workspace, _):
            service = _service(workspace)
        clients = [one[KEY] for call in calls for one in call]
        found = [None if row is None else tuple(row.values()) for row in rows]
        _write(task, service, clients, found)
        stack.close()

    return Prepared(operation=operation, finish=finish, calls=len(calls))


def _service(workspace: Workspace) -> ResolvedService:
    with workspace.catalog.reading() as session:
        return resolve_service(session, active_state(session), SERVICE)


def _lookup(workspace: Workspace, service: ResolvedService) -> OnlineLookup:
    return OnlineLookup(service, workspace.online, workspace.settings.clock)


def _clients(task: Task) -> list[int]:
    clients: list[int] = pq.read_table(task.data / "requests.parquet").column(KEY).to_pylist()
    return clients


def _write(
    task: Task,
    service: ResolvedService,
    clients: list[int],
    rows: Sequence[tuple[object, ...] | None],
) -> None:
    names = [column.name for column in service.columns]
    nothing = (None,) * len(names)
    columns = dict(zip(names, zip(*(row or nothing for row in rows), strict=True), strict=True))
    pq.write_table(pa.table({KEY: clients, **columns}), task.answer)


BENCHES = {
    "point-in-time": training_set,
    "windows-dense": training_set,
    "windows-sparse": training_set,
    "growth-1x": training_set,
    "growth-2x": training_set,
    "growth-4x": training_set,
    "growth-8x": training_set,
    "publish": publishing,
    "online-1": online,
    "online-100": online,
    "spark": on_spark,
}

if __name__ == "__main__":
    run_task(BENCHES)
