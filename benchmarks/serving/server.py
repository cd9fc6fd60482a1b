"""A server as a process: started, waited for, measured, ended with all that it started."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_s_of, shared_kb_of, started_by

START_WITHIN_S = 120.0


class ServerFailed(Exception):
    """A server that did not come up, or gave another answer than it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`started_s` is how long it took from nothing until it was ready."""

    url: str
    pid: int
    started_s: float

    def cpu_s(self) -> float:
        return cpu_s_of(self.processes())

    def memory_mb(self) -> float:
        """Of all its processes, now; what they share counts once."""
        return shared_kb_of(self.processes()) / 1024

    def processes(self) -> list[int]:
        return [self.pid, *started_by(self.pid)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready_path: str,
    headers: Mapping[str, str],
    folder: Path,
    environment: Mapping[str, str],
) -> Iterator[Server]:
    """The server while the block runs. Its log is in `folder`."""
    log, started = folder / "server.log", time.monotonic()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        while not is_answered(url + ready_path, None, headers):
            if process.poll() is not None or time.monotonic() - started > START_WITHIN_S:
                raise ServerFailed(f"{command[0]} did not come up:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield Server(url=url, pid=process.pid, started_s=time.monotonic() - started)
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    others = started_by(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in (process.pid, *others):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def is_answered(url: str, body: bytes | None, headers: Mapping[str, str]) -> bool:
    """Whether a GET, or a POST of `body`, gets a 200."""
    try:
        _ask(url, body, headers)
    except OSError:
        return False
    return True


def post(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    return _ask(url, body, headers)


def _ask(url: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
    """HTTP errors are `OSError`s."""
    request = urllib.request.Request(url, body, dict(headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
        return content
