"""A node: a parent that owns the socket, and the processes that answer on it.

The parent needs no heavy library and touches no request. It starts processes again when they die,
after a pause that doubles each time, and packs what they log.
"""

import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from konveyer.core.errors import KonveyerError
from konveyer.core.pauses import doubled
from konveyer.core.processes import is_alive
from konveyer.core.sockets import AddressTaken, listening
from konveyer.core.storage import Storage
from konveyer.execution.serving.control import READY, SILENT_S, STOP
from konveyer.execution.serving.json_logs import log_json
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.segments import log_folder, ready_segments
from konveyer.execution.serving.siblings import (
    forget,
    metrics_folder,
    node_report,
    remove_counts,
)

BIND_WITHIN_S = 3.0
STOP_WITHIN_S = 15.0
PACK_EVERY_S = 5.0
_TURN_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 10.0
# A process that lived so long died of something new.
_HEALTHY_S = 60.0
# Read when prometheus_client is first imported, here and by every process that answers. A process
# that has it leaves files there, so that short ones must not.
_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# A folder in memory, and how much of it must be free: processes share far less.
_MEMORY, _ROOM_BYTES = Path("/dev/shm"), 32_000_000  # noqa: S108 - names there are new ones
_log = logging.getLogger(__name__)

# The command of a process: its number, and the descriptors of its listener and its control.
Command = Callable[[int, int, int, Path], Sequence[str]]


class NodeFailed(KonveyerError):
    """A process of the node ended before it ever answered."""

    code = "node_failed"


@dataclass
class _Process:
    """One process that answers, and when it is started again if it is gone."""

    number: int
    running: "subprocess.Popen[bytes] | None" = None
    control: socket.socket | None = None
    is_ready: bool = False
    was_ready: bool = False
    failures: int = 0
    started_s: float = 0.0
    heard_s: float = 0.0
    start_at_s: float = field(default=0.0)


def run_node(
    environment: str,
    *,
    storage: Storage,
    following: Callable[[], AbstractContextManager[None]],
    logs: Path,
    run: Path,
    host: str,
    port: int,
    processes: int,
    command: Command,
    advertised: str | None = None,
    parent: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then let the processes finish, and pack the log.

    The node is known in `storage` under the URL `advertised`, where that is not where it listens.
    What it serves is brought to this machine and what it logs is sent within `following`. The
    prediction log is written below the folder `logs`; `run` has a link to what the processes share.

    The end of the process `parent`, when given, is such a signal too.

    Port 0 takes a free one; `presence.nodes_of` tells which.
    """
    log_json()
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signal_number, _: stopping.append(signal_number))
    listener = _listening(host, port)
    address = listener.getsockname()
    url = f"http://{address[0]}:{address[1]}"

    def is_over() -> bool:
        return bool(stopping) or (parent is not None and os.getppid() != parent)

    with _run_folder(run, environment) as folder, following():
        node = _Node(listener, folder, log_folder(logs, environment), command, processes)
        try:
            node.run_until(lambda: is_over() or node.is_ready)
            if not is_over():
                with announced(
                    storage, environment, advertised or url, lambda: node_report(folder)
                ) as tell:
                    _log.info("serving %s at %s, %d process(es)", environment, url, processes)
                    node.run_until(is_over, tell)
        finally:
            node.stop()


class _Node:
    """The processes, and what is done about them in each turn."""

    def __init__(
        self, listener: socket.socket, folder: Path, log: Path, command: Command, count: int
    ) -> None:
        self._listener, self._folder, self._log_folder = listener, folder, log
        self._command = command
        self._processes = [_Process(number) for number in range(count)]
        self._selector = selectors.DefaultSelector()
        self._packer: subprocess.Popen[bytes] | None = None
        self._pack_at_s = 0.0

    @property
    def is_ready(self) -> bool:
        return all(process.is_ready for process in self._processes)

    def run_until(
        self, is_over: Callable[[], bool], changed: Callable[[], None] | None = None
    ) -> None:
        """Keep the processes running; raises when one of them ended that never was ready.

        `changed` is called when they serve something else than before.
        """
        told = node_report(self._folder)
        while not is_over():
            now_s = time.monotonic()
            report = node_report(self._folder)
            if report != told and changed is not None:
                told = report
                changed()
            for process in self._processes:
                self._look_after(process, now_s)
            self._pack(now_s)
            for key, _ in self._selector.select(_TURN_S):
                self._hear(key.data)

    def stop(self) -> None:
        """Ask all to finish, kill those that do not, and pack what they have logged."""
        self._listener.close()
        for process in self._processes:
            if process.control is not None:
                with suppress(OSError):
                    process.control.send(STOP)
        deadline_s = time.monotonic() + STOP_WITHIN_S
        running = [process for process in self._processes if process.running is not None]
        while running and time.monotonic() < deadline_s:
            for key, _ in self._selector.select(_TURN_S):
                self._hear(key.data)
            running = [one for one in running if one.running and one.running.poll() is None]
        for process in running:
            if process.running is not None:
                _log.error("process %d did not stop: it is killed", process.number)
                process.running.kill()
                process.running.wait()
        if self._packer is not None:
            self._packer.wait()
        if ready_segments(self._log_folder):
            self._start_packing().wait()
        self._selector.close()
        for process in self._processes:
            if process.control is not None:
                process.control.close()

    def _look_after(self, process: _Process, now_s: float) -> None:
        if process.running is None:
            if now_s >= process.start_at_s:
                self._start(process, now_s)
            return
        if process.is_ready and now_s > process.heard_s + SILENT_S:
            _log.error("process %d hangs: it is killed", process.number)
            process.running.kill()
            process.heard_s = now_s
        status = process.running.poll()
        if status is not None:
            self._bury(process, status, now_s)

    def _start(self, process: _Process, now_s: float) -> None:
        # Whoever cleans up folders of temporary files may have removed it.
        metrics_folder(self._folder).mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        command = self._command(
            process.number, self._listener.fileno(), theirs.fileno(), self._folder
        )
        process.running = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(self._listener.fileno(), theirs.fileno()),
            # Ctrl-C in a terminal is for the parent, which lets them finish.
            start_new_session=True,
        )
        theirs.close()
        process.control, process.is_ready = ours, False
        process.started_s = process.heard_s = now_s
        self._selector.register(ours, selectors.EVENT_READ, process)

    def _hear(self, process: _Process) -> None:
        if process.control is None:
            return
        try:
            said = process.control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._selector.unregister(process.control)
            process.control.close()
            process.control = None
        process.is_ready = process.is_ready or READY in said
        process.was_ready = process.was_ready or process.is_ready
        process.heard_s = time.monotonic()

    def _bury(self, process: _Process, status: int, now_s: float) -> None:
        self._hear(process)  # it may have become ready since
        if process.control is not None:
            self._selector.unregister(process.control)
            process.control.close()
        forget(self._folder, process.number)
        if process.running is not None:
            # Here, because the parent needs it for nothing else. What was counted stays added up.
            from prometheus_client.multiprocess import mark_process_dead

            mark_process_dead(  # type: ignore[no-untyped-call]
                process.running.pid, metrics_folder(self._folder)
            )
            if not process.is_ready:
                # It counted next to nothing; failing again and again, it must not fill the folder.
                remove_counts(self._folder, process.running.pid)
        if not process.was_ready:
            raise NodeFailed(
                f"Process {process.number} of the node ended with {status} before it could answer.",
                hint="its own words stand above",
            )
        lived_s = now_s - process.started_s
        process.failures = 1 if lived_s > _HEALTHY_S else process.failures + 1
        pause_s = doubled(_FIRST_PAUSE_S, process.failures, _LONGEST_PAUSE_S)
        _log.error(
            "process %d ended with %d; it starts again in %g s", process.number, status, pause_s
        )
        process.running, process.control, process.is_ready = None, None, False
        process.start_at_s = now_s + pause_s

    def _pack(self, now_s: float) -> None:
        if self._packer is not None:
            if self._packer.poll() is None:
                return
            self._packer = None
        if now_s >= self._pack_at_s:
            self._pack_at_s = now_s + PACK_EVERY_S
            if ready_segments(self._log_folder):
                self._packer = self._start_packing()

    def _start_packing(self) -> "subprocess.Popen[bytes]":
        module = "konveyer.execution.serving.prediction_files"
        return subprocess.Popen(
            [sys.executable, "-m", module, str(self._log_folder)],
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != _COUNTS},
            start_new_session=True,
        )


def _listening(host: str, port: int) -> socket.socket:
    """Processes of a parent that was killed give its port back in a moment: wait for that."""
    deadline_s = time.monotonic() + BIND_WITHIN_S
    while True:
        try:
            return listening(host, port)
        except AddressTaken:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


@contextmanager
def _run_folder(run: Path, environment: str) -> Iterator[Path]:
    """What the processes of this node share; those of dead nodes are removed.

    It is in memory where that can be had: a process that writes into a file that it has mapped is
    killed when the disk is full. The link to it in `run` is how the next node finds it.
    """
    for old in run.glob(f"{environment}-*"):
        if not is_alive(int(old.name.rpartition("-")[2])):
            _remove(old)
    link = run / f"{environment}-{os.getpid()}"
    # In a container every node has the same id: what one before has said is not of this one.
    _remove(link)
    run.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="konveyer.", dir=_MEMORY if _has_memory() else run))
    try:
        link.symlink_to(folder.resolve())
        metrics_folder(folder).mkdir()
        os.environ[_COUNTS] = str(metrics_folder(folder))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _remove(link)


def _has_memory() -> bool:
    try:
        has_room = shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    except OSError:
        return False
    return has_room and os.access(_MEMORY, os.W_OK)


def _remove(link: Path) -> None:
    """The folder of a node, and the link to it."""
    shutil.rmtree(link.resolve(), ignore_errors=True)
    with suppress(OSError):
        link.unlink()
