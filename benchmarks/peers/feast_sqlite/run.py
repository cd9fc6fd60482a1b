"""Feast's SDK with its default online store, SQLite.

It is filled from the default offline store; the DuckDB one is no faster at that.
"""

import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from benchmarks.features.measure import Prepared, Task, run_task
from benchmarks.features.requests import KEY, requests_of
from benchmarks.peers.feast_repo import FEATURES, applied_store

FIRST, LAST = datetime(2022, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
OFFLINE = "duckdb"
Columns = dict[str, list[object]]


def publish(task: Task) -> Prepared:
    """From the offline files into an empty online store."""
    shutil.rmtree(task.state)
    task.state.mkdir()
    store = applied_store(task, offline="dask", ttl=None)

    def operation() -> None:
        store.materialize(FIRST, LAST)

    def finish() -> None:
        clients = _clients(task)
        calls = [clients[start : start + 100] for start in range(0, len(clients), 100)]
        _write(task, [_read(store, call) for call in calls])

    return Prepared(operation=operation, finish=finish)


def online(task: Task) -> Prepared:
    """Reads from a store that was published before."""
    store = applied_store(task, offline="dask", ttl=None)
    calls = requests_of(task.bench, _clients(task))
    _read(store, calls[0])
    answers: list[Columns] = []

    def operation() -> None:
        answers.extend(_read(store, call) for call in calls)

    return Prepared(operation=operation, finish=lambda: _write(task, answers), calls=len(calls))


def _read(store: FeatureStore, clients: list[int]) -> Columns:
    answer = store.get_online_features(features=FEATURES, entity_rows={KEY: clients})
    columns: Columns = answer.to_dict()
    return columns


def _clients(task: Task) -> list[int]:
    clients: list[int] = pq.read_table(task.data / "requests.parquet").column(KEY).to_pylist()
    return clients


def _write(task: Task, answers: list[Columns]) -> None:
    columns = {name: [value for answer in answers for value in answer[name]] for name in answers[0]}
    pq.write_table(pa.table(columns), task.answer)


if __name__ == "__main__":
    run_task({"publish": publish, "online-1": online, "online-100": online})
