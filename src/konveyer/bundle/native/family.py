"""A worker family: a process that has imported the libraries and forks a worker for each model.

Run in the models' own environment. Reads what is wanted from its input, a JSON line each time it
changes: `{"modules": [...], "models": [{"digest", "bundle", "socket", "memory_mb", "limit_s"}]}`.
It ends, and its workers with it, when its input ends.

A worker that ends, takes longer than its limit for a call, or more memory, is started again: at
once, and after every failure that follows soon with twice the pause.
"""

import gc
import importlib
import json
import os
import re
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from konveyer.bundle.native.worker import OUT_OF_MEMORY, BusySince, run_worker

LOOK_EVERY_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, WELL_AFTER_S = 0.05, 0.1, 30.0, 30.0
_START_WITHIN_S, _MOST_DOUBLINGS = 120.0, 32
_OF_NO_FILE = re.compile(rb"^Rss(?:Anon|Shmem):\s*(\d+) kB$", re.MULTILINE)


@dataclass(slots=True)
class Worker:
    """One model that is wanted, and the process that answers for it, if it runs."""

    wanted: dict[str, Any]
    busy: BusySince = field(default_factory=BusySince)
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    due: float = 0.0
    shared_bytes: int = 0
    has_started: bool = False

    @property
    def socket(self) -> Path:
        return Path(self.wanted["socket"])

    @property
    def said(self) -> Path:
        """A file beside the socket with the reason of the last failure."""
        return self.socket.with_suffix(".why")

    def fork(self) -> None:
        self.busy.stop()
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        self.has_started = False
        self.shared_bytes = _bytes_of(os.getpid())
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            run_worker(self.wanted, self.busy, self.said)
        self.pid, self.started = pid, time.monotonic()

    def look(self) -> str:
        """Why the worker must go; nothing when it is well."""
        if self.socket.exists():
            self.has_started = True
        elif self.has_started:  # who cleans the folder of temporary files may have done it
            return "its socket was removed"
        limit_s = self.wanted["limit_s"] if self.has_started else _START_WITHIN_S
        if self.busy.seconds() > limit_s:
            return f"it took longer than {limit_s:g} s"
        taken_bytes = _bytes_of(self.pid) - self.shared_bytes
        if taken_bytes > self.wanted["memory_mb"] * 1_000_000:
            return f"it took more than {self.wanted['memory_mb']} MB of memory"
        return ""

    def kill(self) -> None:
        if not self.pid:  # it waits to be forked again; 0 would be the family itself
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.kill_others()

    def kill_others(self) -> None:
        """What the model has started, which is in the group of its worker."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def ended(self, reason: str) -> None:
        """Nobody can connect until another has started, after a pause that grows."""
        self.kill_others()
        self.socket.unlink(missing_ok=True)
        lived_s = time.monotonic() - self.started
        self.failures = 1 if lived_s > WELL_AFTER_S else self.failures + 1
        # Of thousands of failures the power itself would be too large for a number.
        doublings = min(self.failures - 1, _MOST_DOUBLINGS)
        pause_s = min(FIRST_PAUSE_S * 2**doublings, LONGEST_PAUSE_S)
        self.pid, self.due = 0, time.monotonic() + pause_s
        if reason:
            with suppress(OSError):  # a full disk must not end the family, and all models with it
                self.said.write_text(reason)


def _bytes_of(pid: int) -> int:
    """Of the memory of a process what no file holds, also where other processes share it."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    return sum(int(kilobytes) * 1024 for kilobytes in _OF_NO_FILE.findall(status))


class Family:
    """Keeps a worker alive for every wanted model."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._imported: set[str] = set()
        self._killed: dict[int, str] = {}

    def run(self) -> None:
        buffer = b""
        while True:
            ready, _, _ = select.select([0], [], [], LOOK_EVERY_S)
            if ready:
                part = os.read(0, 1 << 20)
                if not part:
                    break
                *lines, buffer = (buffer + part).split(b"\n")
                if lines:
                    self._want(json.loads(lines[-1]))
            self._reap()
            self._supervise()
        for worker in self._workers.values():
            worker.kill()

    def _want(self, wanted: dict[str, Any]) -> None:
        models = {one["digest"]: one for one in wanted["models"]}
        for digest in [*self._workers]:
            if digest not in models:
                worker = self._workers.pop(digest)
                worker.socket.unlink(missing_ok=True)
                worker.said.unlink(missing_ok=True)
                worker.kill()
        self._import(wanted["modules"])
        for digest, one in models.items():
            if digest in self._workers:
                self._workers[digest].wanted = one
            else:
                self._workers[digest] = Worker(wanted=one)

    def _import(self, names: list[str]) -> None:
        """What models will import, once for all of them; what cannot be imported here is left."""
        for name in names:
            if name in self._imported:
                continue
            self._imported.add(name)
            with suppress(Exception):
                importlib.import_module(name)
        gc.collect()
        # Nothing that is there now is moved by a worker's collector: its pages stay shared.
        gc.freeze()

    def _supervise(self) -> None:
        now = time.monotonic()
        for worker in self._workers.values():
            if not worker.pid and now >= worker.due:
                worker.fork()
            reason = worker.look() if worker.pid else ""
            if reason and worker.pid not in self._killed:
                self._killed[worker.pid] = reason
                worker.kill()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            reason = self._killed.pop(pid, "") or _ending(status)
            for worker in self._workers.values():
                if worker.pid == pid:
                    worker.ended(reason)


def _ending(status: int) -> str:
    """Nothing when the worker has said itself why it ended."""
    if os.WIFSIGNALED(status):
        return f"it was ended by signal {os.WTERMSIG(status)}"
    code = os.waitstatus_to_exitcode(status)
    if code == OUT_OF_MEMORY:
        return "it took more than its limit of memory"
    return "" if code == 1 else f"it ended with exit status {code}"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Family().run()
