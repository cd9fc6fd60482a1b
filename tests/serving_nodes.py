"""Real nodes of a serving space, and callers that ask without a pause."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil

from tests.serving_space import ServingSpace
from tests.support import nodes_up, wait_for

PATH = "/scoring/v1/predict"


@dataclass(frozen=True)
class Node:
    """A running node."""

    url: str
    parent: "subprocess.Popen[bytes]"
    space: ServingSpace

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def processes(self) -> list[psutil.Process]:
        """Those that answer."""
        return running_below(self.parent.pid, "node-process")

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, **options)

    def log(self) -> str:
        return (self.space.root / "node.log").read_text()


def running_below(pid: int, word: str) -> list[psutil.Process]:
    """The processes below `pid` with this word in their command; none that has just ended."""
    found = []
    for one in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if word in one.cmdline():
                found.append(one)
    return found


def command_of(space: ServingSpace, *arguments: str) -> list[str]:
    program = [sys.executable, "-m", "konveyer", "--workspace", str(space.root), "serve", "prod"]
    return [*program, *arguments]


@contextmanager
def serving(
    space: ServingSpace, *, processes: int = 1, port: int = 0, serves: bool = True
) -> Iterator[Node]:
    """A node of the space, stopped at the end."""
    command = command_of(space, "--port", str(port), "--processes", str(processes))
    with (space.root / "node.log").open("ab") as output:
        parent = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_for(
            lambda: any(node.pid == parent.pid for node in nodes_up(space.root, "prod")), parent
        )
        url = next(n.url for n in nodes_up(space.root, "prod") if n.pid == parent.pid)
        node = Node(url, parent, space)
        if serves:
            with node.client() as client:
                wait_for(lambda: client.get("/health/ready").json()["versions"], parent)
        yield node
    finally:
        if parent.poll() is None:
            parent.send_signal(signal.SIGTERM)
        parent.wait(30)


def kill(process: psutil.Process) -> None:
    """kill -9."""
    os.kill(process.pid, signal.SIGKILL)


@dataclass
class Load:
    """Callers that ask one request after the other, each on a connection that it keeps.

    `answers` counts status and bundle, `codes` are those of errors; `broken` are requests that got
    no answer: on a connection that could not be made ("connect"), that had no answer yet ("new"),
    or that had some. Use as a context.
    """

    url: str
    connections: int = 8
    path: str = PATH
    headers: dict[str, str] = field(default_factory=dict)
    bodies: Sequence[bytes] = tuple(b'{"client_id": %d}' % client for client in range(200))
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    codes: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        wait_for(lambda: self.total >= self.connections)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    @property
    def statuses(self) -> set[int]:
        return {status for status, _ in self.answers}

    def bundles(self) -> set[str]:
        return {bundle for _, bundle in self.answers}

    def more(self, count: int) -> None:
        """Wait for so many further answers."""
        before = self.total
        wait_for(lambda: self.total >= before + count)

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask_on(number) for number in range(self.connections)))

    async def _ask_on(self, number: int) -> None:
        where = urlsplit(self.url)
        turn = number
        while not self._ended.is_set():
            try:
                reader, writer = await asyncio.open_connection(where.hostname, where.port)
            except OSError as error:
                self.broken.append(f"connect: {error}")
                await asyncio.sleep(0.05)
                continue
            is_new = True
            try:
                while not self._ended.is_set():
                    turn += self.connections
                    if not await self._ask(reader, writer, self.bodies[turn % len(self.bodies)]):
                        break
                    is_new = False
            except (OSError, asyncio.IncompleteReadError) as error:
                self.broken.append(f"new: {error!r}" if is_new else repr(error))
            finally:
                writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
    ) -> bool:
        """One request; whether the connection goes on."""
        given = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{given}\r\n"
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.split("content-length: ")[1].split("\r\n")[0])
        content = json.loads(await reader.readexactly(length))
        self.seconds.append(time.perf_counter() - began)
        self.answers[int(answer.split()[1]), content.get("bundle", "")] += 1
        self.ids.append(content["request_id"])
        if "error" in content:
            self.codes.add(content["error"]["code"])
        return "connection: close" not in answer


def wait_for_bundle(node: Node, digest: str, *, side: str = "live") -> None:
    """Until every process of the node serves it."""
    wanted = {"bundle": digest, "side": side}
    with node.client() as client:
        wait_for(
            lambda: any(
                wanted.items() <= one.items()
                for one in client.get("/health/ready").json()["versions"]
            )
        )


def rows_logged(root: Path) -> list[dict[str, Any]]:
    from konveyer.core.storage import FolderStorage
    from konveyer.execution.serving.prediction_reader import read_predictions

    return list(read_predictions(FolderStorage(root / "state"), "prod"))
