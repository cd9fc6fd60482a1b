"""A command may hand a run to a worker that serves and has not made its tables yet."""

import subprocess
import sys
from pathlib import Path

from konveyer.pipeline.flow import Run
from konveyer.pipeline.worker import run_elsewhere

WORKER = """
import sys, time
from konveyer.pipeline.flow import Flow
from konveyer.pipeline.worker import started_worker

time.sleep(1.5)
with started_worker(sys.argv[1], [Flow("add", lambda steps, payload: payload["x"] + 1)]):
    time.sleep(60)
"""


def test_a_run_waits_for_the_tables_of_a_worker_that_starts(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pipelines.db"
    with subprocess.Popen([sys.executable, "-c", WORKER, url]) as worker:
        try:
            run = Run(flow="add", id="one", payload={"x": 41})
            assert run_elsewhere(url, run, is_served=lambda: True) == 42
        finally:
            worker.kill()
