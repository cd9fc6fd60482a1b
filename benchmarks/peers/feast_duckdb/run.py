"""Feast with its DuckDB offline store."""

import feast.infra.offline_stores.duckdb  # noqa: F401 - loaded before anything is timed
import ibis.backends.duckdb  # noqa: F401

from benchmarks.features.measure import Prepared, Task, run_task
from benchmarks.peers.feast_repo import historical


def point_in_time(task: Task) -> Prepared:
    return historical(task, offline="duckdb")


if __name__ == "__main__":
    run_task({"point-in-time": point_in_time})
