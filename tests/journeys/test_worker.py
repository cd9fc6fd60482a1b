"""The worker of runs: a database without tables or room, and steps that panic."""

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


FULL = """
import resource, signal, sys
from konveyer.pipeline.flow import Flow, Run
from konveyer.pipeline.worker import RunNotRecorded, started_worker

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)

def fill(steps, payload):
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    return 42

run = Run(flow="fill", id="one", payload={})
with started_worker(sys.argv[1], [Flow("fill", fill)]) as worker:
    try:
        worker.run(run)
    except RunNotRecorded:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
with started_worker(sys.argv[1], [Flow("fill", lambda steps, payload: 42)]) as worker:
    assert worker.finish_leftovers() == ["one"]
    assert worker.run(run) == 42
"""


FULL_AND_SERVING = """
import resource, signal, sys, time
from konveyer.pipeline import worker as module
from konveyer.pipeline.flow import Flow, Run
from konveyer.pipeline.worker import started_worker

module._RECORDED_WITHIN_S = 0.5
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
calls = []

def fill(steps, payload):
    calls.append(time.monotonic())
    if len(calls) == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    return 42

run = Run(flow="fill", id="one", payload={})
with started_worker(sys.argv[1], [Flow("fill", fill)]) as worker:
    worker.start_due([lambda under_way: [run]])
    while not calls:
        time.sleep(0.1)
    time.sleep(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    while worker.under_way():
        worker.start_due([lambda under_way: [run]])
        time.sleep(0.1)
    assert len(calls) == 2, calls
"""


def test_a_due_run_that_could_not_be_recorded_goes_on_when_there_is_room(tmp_path: Path) -> None:
    program = [sys.executable, "-c", FULL_AND_SERVING, f"sqlite:///{tmp_path}/pipelines.db"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_run_that_cannot_be_recorded_ends_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    program = [sys.executable, "-c", FULL, f"sqlite:///{tmp_path}/pipelines.db"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


PANIC = """
import sys
from konveyer.core.errors import KonveyerError
from konveyer.pipeline.flow import Flow, Run
from konveyer.pipeline.worker import started_worker

class PanicException(BaseException):
    pass

def panic():
    raise PanicException("index out of bounds")

flow = Flow("panic", lambda steps, payload: steps.step("panic", panic))
with started_worker(sys.argv[1], [flow]) as worker:
    try:
        worker.run(Run(flow="panic", id="one", payload={}))
    except KonveyerError as error:
        assert "PanicException: index out of bounds" in str(error), error
        assert not worker.under_way()
        sys.exit(0)
sys.exit(1)
"""


def test_a_run_that_panics_has_failed(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PANIC, f"sqlite:///{tmp_path}/pipelines.db"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
