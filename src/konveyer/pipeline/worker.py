"""The worker: runs flows durably on DBOS Transact. The only module that knows DBOS."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer, SetWorkflowID
from sqlalchemy.exc import OperationalError, ProgrammingError

from konveyer.core.errors import KonveyerError
from konveyer.pipeline.flow import Flow, Json, Run, packed_error, unpacked_error
from konveyer.pipeline.schedule import Due

# One worker at a time holds the workspace's lease, so one stable name is unique, and a run that
# waits across an upgrade is not stranded by a changed version.
EXECUTOR, VERSION = "worker", "1"
_POLL_S = 0.1
# Runs that are due wait in a queue of their own, so that a person's run does not wait for them.
_DUE_QUEUE, _DUE_AT_ONCE = "due", 2
_UNFINISHED = ["PENDING", "ENQUEUED"]
_WORKER_GONE_AFTER_S = 10.0
_TABLES_WITHIN_S = 20.0
_RECORDED_WITHIN_S = 5.0
_log = logging.getLogger(__name__)


class WorkerGone(KonveyerError):
    """The worker that a run was handed to is not there any more."""

    code, status = "worker_gone", HTTPStatus.SERVICE_UNAVAILABLE


class RunNotRecorded(KonveyerError):
    """A run came to its end, and the pipeline database did not take that: its disk may be full."""

    code, status = "run_not_recorded", HTTPStatus.SERVICE_UNAVAILABLE


class _JsonSerializer(Serializer):
    def serialize(self, data: Any) -> str:
        return msgspec.json.encode(data).decode()

    def deserialize(self, serialized_data: str) -> Any:
        return msgspec.json.decode(serialized_data)

    def name(self) -> str:
        return "konveyer_json"


class _DurableSteps:
    def step(self, name: str, work: Callable[[], Json]) -> Json:
        sealed = partial(_sealed, name, partial(_unless_it_panics, work))
        return _opened(DBOS.run_step({"name": name}, sealed))


def _unless_it_panics(work: Callable[[], Json]) -> Json:
    """A panic in Rust, such as one of Delta or Polars, is no `Exception`: DBOS records none of
    those, and the run would have no end.
    """
    try:
        return work()
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _sealed(name: str, work: Callable[[], Json]) -> dict[str, Any]:
    """An error is recorded as a result, in JSON: a resumed run fails again in the same words."""
    try:
        return {"result": work()}
    except KonveyerError as error:
        return {"error": packed_error(error)}
    except Exception as error:  # noqa: BLE001 - whatever a step raises must be recorded
        _log.exception("%s failed", name)
        return {"error": packed_error(error)}


def _opened(sealed: dict[str, Any]) -> Json:
    if "error" in sealed:
        raise unpacked_error(sealed["error"])
    return sealed["result"]


class Worker:
    """Runs the flows it is given, in threads of this process."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        # When each run of this process came to its end, recorded or not.
        self._ended: dict[str, float] = {}
        self._workflows = {flow.name: _workflow(flow, self._ended) for flow in flows}

    def run(self, run: Run) -> Json:
        """Run to the end and give its result. A run id that ended before gives that result."""
        return _opened(self._result(self._started(run)))

    def start(self, runs: Sequence[Run], *, unless_under_way: Callable[[Run], str]) -> None:
        """Start runs without waiting for them.

        One is left out while the id of an unfinished run begins with what `unless_under_way` says.
        """
        unfinished = self._unfinished()
        for run in runs:
            if not any(found.startswith(unless_under_way(run)) for found in unfinished):
                self._started(run)

    def start_due(self, due: Sequence[Due]) -> None:
        """Start what each of `due` gives, a few runs at a time, without waiting for them.

        A run whose id there was before is not started again. One of `due` that cannot tell is
        logged and keeps nobody else from starting. A run whose end could not be recorded goes on
        from its last recorded step.
        """
        ended = [run_id for run_id in list(self._ended) if self._has_ended(run_id)]
        unfinished = set(self._unfinished())
        for run_id in ended:
            if run_id in unfinished:
                DBOS.resume_workflow(run_id)
            del self._ended[run_id]
        for ask in due:
            try:
                runs = ask(self.under_way())
            except Exception:  # noqa: BLE001 - a defect of one must not stop the rest
                _log.exception("what is due cannot be told")
                continue
            for run in runs:
                with SetWorkflowID(run.id):
                    DBOS.enqueue_workflow(_DUE_QUEUE, self._workflows[run.flow], dict(run.payload))

    def under_way(self) -> list[Run]:
        """All runs that have not ended: running, waiting for their turn, or left by a kill."""
        found = DBOS.list_workflows(status=_UNFINISHED, load_output=False)
        return [
            Run(flow=status.name, id=status.workflow_id, payload=status.input["args"][0])
            for status in found
            if status.name in self._workflows and status.input is not None
        ]

    def _started(self, run: Run) -> Any:
        with SetWorkflowID(run.id):
            return DBOS.start_workflow(self._workflows[run.flow], dict(run.payload))

    def _unfinished(self) -> list[str]:
        found = DBOS.list_workflows(status=_UNFINISHED, load_input=False, load_output=False)
        return [status.workflow_id for status in found]

    def _has_ended(self, run_id: str) -> bool:
        """Whether a run came to its end here so long ago that the database should know."""
        ended = self._ended.get(run_id)
        return ended is not None and time.monotonic() - ended > _RECORDED_WITHIN_S

    def finish_leftovers(self) -> list[str]:
        """Wait for the runs that an earlier worker left behind (resumed at start); their ids."""
        left = self._unfinished()
        for run_id in left:
            self._result(DBOS.retrieve_workflow(run_id))
        return left

    def _result(self, handle: Any) -> Any:
        """Wait in short naps: a thread that waits for another in one piece does not hear Ctrl-C."""
        while handle.get_status().status in _UNFINISHED:
            if self._has_ended(handle.get_workflow_id()):
                raise RunNotRecorded(
                    "The run stopped, and the pipeline database could not be written: the disk "
                    "may be full.",
                    hint="make room: the next command that runs something goes on with it",
                )
            time.sleep(_POLL_S)
        return handle.get_result(polling_interval_sec=_POLL_S)


def _workflow(flow: Flow, ended: dict[str, float]) -> Any:
    def run(payload: dict[str, Any]) -> dict[str, Any]:
        try:
            return _sealed(flow.name, lambda: flow.run(_DurableSteps(), payload))
        finally:
            ended[str(DBOS.workflow_id)] = time.monotonic()

    return DBOS.workflow(name=flow.name, max_recovery_attempts=None)(run)


@contextmanager
def started_worker(url: str, flows: Sequence[Flow]) -> Iterator[Worker]:
    """A worker for the block, on the pipeline database at `url`. One at a time in a process.

    Runs that an earlier worker was killed in are resumed at once, from their first unfinished
    step. The caller holds the workspace's lease.
    """
    config: DBOSConfig = {
        "name": "konveyer",
        "system_database_url": url,
        "executor_id": EXECUTOR,
        "application_version": VERSION,
        "serializer": _JsonSerializer(),
        "log_level": "ERROR",
        "use_listen_notify": False,
        "notification_listener_polling_interval_sec": _POLL_S,
    }
    DBOS(config=config)
    worker = Worker(flows)
    try:
        DBOS.launch()
        # Each flow has a queue of its own: what waits long holds up only its like.
        queues = {flow.name: flow.at_once for flow in flows} | {_DUE_QUEUE: _DUE_AT_ONCE}
        for queue, at_once in queues.items():
            DBOS.register_queue(queue, worker_concurrency=at_once, polling_interval_sec=_POLL_S)
        yield worker
    finally:
        DBOS.destroy(destroy_registry=True)


def run_elsewhere(url: str, run: Run, *, is_served: Callable[[], bool]) -> Json:
    """Hand a run to the worker that serves the workspace, and wait for its result."""
    # That the worker has found the run by itself is nothing to warn about.
    logging.getLogger("dbos").setLevel(logging.ERROR)
    client = DBOSClient(system_database_url=url, serializer=_JsonSerializer())
    try:
        handle = _handed_over(client, run)
        _wait(handle, is_served)
        return _opened(handle.get_result(polling_interval_sec=_POLL_S))
    finally:
        client.destroy()


def _handed_over(client: DBOSClient, run: Run) -> Any:
    """A worker that serves may still be making the tables, for the first time or of a new version.
    Asking again is harmless.
    """
    options: Any = {
        "queue_name": run.flow,
        "workflow_name": run.flow,
        "workflow_id": run.id,
        "app_version": VERSION,
    }
    began = time.monotonic()
    while True:
        try:
            return client.enqueue(options, dict(run.payload))
        except (OperationalError, ProgrammingError):
            if time.monotonic() - began > _TABLES_WITHIN_S:
                raise
            time.sleep(_POLL_S)


def _wait(handle: Any, is_served: Callable[[], bool]) -> None:
    """Return once the run has ended; raise when no worker has served for a while."""
    served_at = time.monotonic()
    while handle.get_status().status in _UNFINISHED:
        time.sleep(_POLL_S)
        if is_served():
            served_at = time.monotonic()
        elif time.monotonic() - served_at > _WORKER_GONE_AFTER_S:
            raise WorkerGone(
                "The worker stopped before the run ended.",
                hint="the run goes on with the next 'konveyer up' or command that runs something",
            )
