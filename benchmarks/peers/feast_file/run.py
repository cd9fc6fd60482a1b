"""Feast with its default offline store, which reads files with Dask. Loses stale labels."""

import feast.infra.offline_stores.dask  # noqa: F401 - loaded before anything is timed

from benchmarks.features.measure import Prepared, Task, run_task
from benchmarks.peers.feast_repo import historical


def point_in_time(task: Task) -> Prepared:
    return historical(task, offline="dask")


if __name__ == "__main__":
    run_task({"point-in-time": point_in_time})
