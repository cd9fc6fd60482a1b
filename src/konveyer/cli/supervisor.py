"""Keeps the processes of a workspace running: one child for each, restarted when it dies."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import httpx

from konveyer.core.errors import Conflict, KonveyerError
from konveyer.core.pauses import doubled
from konveyer.core.settings import Listen, Settings

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
LONGEST_PAUSE_S = 30.0
_PR_SET_PDEATHSIG = 1
_READY, _ALIVE = "/health/ready", "/health/live"


class PortTaken(Conflict):
    """Somebody else listens where the settings say that we should."""

    code = "port_taken"


class ChildFailed(KonveyerError):
    """A process that did not come up."""

    code = "process_failed"


@dataclass
class Child:
    """One process: its command, where it answers when it is ready, and its restarts so far."""

    name: str
    command: tuple[str, ...]
    log: Path
    address: str | None = None
    ready_path: str = _READY
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    restart_at: float = field(default=0.0)
    started_at: float = field(default=0.0)

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self) -> bool:
        if self.address is None:
            return self.is_running()
        try:
            return httpx.get(self.address + self.ready_path, timeout=2.0).is_success
        except httpx.HTTPError:
            return False

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error ")]
        return (errors or lines or ["it said nothing"])[-1]


def _die_with_parent() -> None:
    """A child must not outlive a supervisor that was killed (Linux; elsewhere it may)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def children_of(settings: Settings, *, free_ports: bool, with_mlflow: bool) -> list[Child]:
    """The processes of a workspace, none of them started."""
    command = (sys.executable, "-m", "konveyer", "--workspace", str(settings.root))
    logs = settings.state / "logs"

    def listening(name: str, listen: Listen, *arguments: str, ready_path: str = _READY) -> Child:
        port = _port(listen, name, any_free=free_ports)
        return Child(
            name,
            (*command, *arguments, "--host", listen.host, "--port", str(port)),
            logs / f"{name}.log",
            address=f"http://{listen.host}:{port}",
            ready_path=ready_path,
        )

    children = [Child("worker", (*command, "worker"), logs / "worker.log")]
    children.append(listening("portal", settings.portal, "portal", "--leave-runs"))
    for environment, listen in settings.environments.items():
        # Models that run in processes of their own may take minutes to be there.
        children.append(listening(environment, listen, "serve", environment, ready_path=_ALIVE))
    if with_mlflow:
        local = Listen()
        port = _port(local, "mlflow", any_free=True)
        server = ("server", "--backend-store-uri", settings.database_url(settings.tracking.url))
        where = ("--host", local.host, "--port", str(port), "--workers", "1")
        children.append(
            Child(
                "mlflow",
                (sys.executable, "-m", "mlflow", *server, *where),
                logs / "mlflow.log",
                address=f"http://{local.host}:{port}",
                ready_path="/health",
            )
        )
    return children


def _port(listen: Listen, name: str, *, any_free: bool) -> int:
    wanted = 0 if any_free else listen.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, wanted))
        except OSError as error:
            raise PortTaken(
                f"Port {listen.port} on {listen.host}, meant for {name}, is in use.",
                hint="stop what listens there, change konveyer.toml, or add --free-ports",
            ) from error
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(children: list[Child]) -> Iterator[None]:
    """Start the children, wait until all answer, stop all of them at the end."""
    try:
        for child in children:
            child.start()
        _wait_until_ready(children)
        yield
    finally:
        stop(children)


def _wait_until_ready(children: list[Child]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    waiting = list(children)
    while waiting:
        for child in waiting:
            if not child.is_running():
                raise ChildFailed(
                    f"{child.name} did not start: {child.last_words()}",
                    hint=f"read {child.log}",
                )
        if time.monotonic() > deadline:
            names = ", ".join(child.name for child in waiting)
            raise ChildFailed(
                f"{names} did not answer within {READY_WITHIN_S:.0f} s.",
                hint=f"read {waiting[0].log}",
            )
        waiting = [child for child in waiting if not child.answers()]
        time.sleep(0.1)


def stop(children: list[Child]) -> None:
    """SIGTERM to all, in the end SIGKILL to whoever is still there.

    The first child, the worker, ends before the nodes do: a gate that measures one of them must
    not see it go.
    """
    processes = [child.process for child in children if child.process is not None]
    deadline = time.monotonic() + STOP_WITHIN_S
    for number, process in enumerate(processes):
        process.terminate()
        if number == 0:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_WITHIN_S / 2)
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def keep_running(children: list[Child], *, until: Callable[[], bool]) -> None:
    """Restart whoever dies, until told to end: after a pause that doubles each time, from one
    second again for whoever ran for longer than the longest pause.
    """
    while not until():
        for child in children:
            if child.is_running():
                continue
            if not child.restart_at:
                if time.monotonic() - child.started_at > LONGEST_PAUSE_S:
                    child.restarts = 0
                pause = doubled(1.0, child.restarts + 1, LONGEST_PAUSE_S)
                child.restart_at = time.monotonic() + pause
            elif time.monotonic() >= child.restart_at:
                child.restarts, child.restart_at = child.restarts + 1, 0.0
                child.start()
        time.sleep(0.2)


def supervise(children: list[Child], *, announce: Callable[[dict[str, str]], None]) -> None:
    """Run the children until SIGINT or SIGTERM; `announce` gets the addresses once all answer."""
    stopping = False

    def stop_asked(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(130)
        stopping = True

    with running(children):
        signal.signal(signal.SIGINT, stop_asked)
        signal.signal(signal.SIGTERM, stop_asked)
        announce({child.name: child.address for child in children if child.address})
        keep_running(children, until=lambda: stopping)
