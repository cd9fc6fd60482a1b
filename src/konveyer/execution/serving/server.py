"""The server of one node process: it accepts, queues, keeps limits of time, and drains."""

import asyncio
import logging
import resource
import socket
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from konveyer.execution.serving.connection import ANSWERING, BODY, HEAD, IDLE, Connection
from konveyer.execution.serving.eager import Waiting, run_at_once
from konveyer.execution.serving.errors import Overloaded
from konveyer.execution.serving.exchange import Answer, Reply, Request

# After it is told to stop, a process answers so long on connections that are open, so that their
# callers learn from an answer that it closes.
LINGER_S = 1.0
# After so long the loop turns before further requests are answered: large ones must not keep a
# process from accepting, and from telling its parent that it lives.
_TURN_S = 0.005
_ACCEPT_AGAIN_S = 0.1
_ALWAYS_ANSWERED = frozenset(
    (b"/health/live", b"/health/ready", b"/v2/health/live", b"/v2/health/ready", b"/metrics")
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one process. A connection that is idle, sends a head or a body, or does not read its
    answer for longer than these seconds is closed. Of more requests than `most_under_way` that are
    not taken up yet, the rest get 429; those that wait have a limit of their own (`room.py`). So do
    those whose bodies would make more than `most_body_bytes` of all that are not answered yet.
    """

    most_under_way: int = 512
    most_body_bytes: int = 256_000_000
    idle_s: float = 75.0
    head_s: float = 10.0
    body_s: float = 30.0
    choked_s: float = 30.0


class Server:
    """Runs `answer` for each request, those that do not wait at once.

    What has arrived is queued before any of it is answered, so that a process that cannot keep up
    refuses at once instead of answering late.
    """

    def __init__(self, answer: Answer, limits: Limits) -> None:
        self._answer, self._limits = answer, limits
        self._connections: set[Connection] = set()
        self._ready: deque[tuple[Connection, Request]] = deque()
        self._first: deque[tuple[Connection, Request]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = self._body_bytes = 0
        self._is_scheduled = False
        self.draining = False
        self.turn_s = 0.0

    @property
    def under_way(self) -> int:
        """Requests that wait or are answered."""
        return self._under_way

    @property
    def connected(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def serve(self, listener: socket.socket, stop: asyncio.Event, within_s: float) -> None:
        """Accept from `listener` until `stop`, then answer what is under way, for `within_s`.

        Connections that wait to be accepted when it stops are still answered.
        """
        self._loop = asyncio.get_running_loop()
        self.turn_s = self._loop.time()
        _raise_open_files()
        listener.setblocking(False)
        accepting = self._loop.create_task(self._accept(listener))
        watching = self._loop.create_task(self._watch())
        await stop.wait()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        await self._accept_waiting(listener)
        listener.close()
        await self._drain(within_s)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    # What connections call.

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def hold(self, size: int) -> bool:
        """Whether there is room for so much more of a body, which is then taken."""
        has_room = self._body_bytes + size <= self._limits.most_body_bytes
        if has_room:
            self._body_bytes += size
        return has_room

    def let_go(self, size: int) -> None:
        self._body_bytes -= size

    def submit(self, connection: Connection, request: Request) -> None:
        self._under_way += 1
        request.started_s = time.perf_counter()
        # Whoever asks after the process's health must not take a busy one for a dead one.
        if request.url.partition(b"?")[0] in _ALWAYS_ANSWERED:
            self._first.append((connection, request))
        else:
            if len(self._ready) >= self._limits.most_under_way and request.problem is None:
                request.problem = Overloaded(
                    f"This process has {len(self._ready)} requests to take up already.",
                    hint="send it again after the seconds in Retry-After",
                )
            self._ready.append((connection, request))
        self._schedule()

    # Answering.

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        """Take up at least one request, and as many more as a turn of the loop has time for."""
        self._is_scheduled = False
        for _ in range(len(self._first)):
            self._take_up(*self._first.popleft())
        until_s = time.monotonic() + _TURN_S
        while self._ready:
            self._take_up(*self._ready.popleft())
            if time.monotonic() > until_s:
                break
        if self._ready or self._first:
            self._schedule()

    def _take_up(self, connection: Connection, request: Request) -> None:
        try:
            reply = run_at_once(self._answer(request))
        except Waiting as waiting:
            task = self._loop.create_task(self._finish(connection, request, waiting.rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._under_way -= 1
            connection.reply(request, reply)

    async def _finish(
        self, connection: Connection, request: Request, rest: Coroutine[Any, Any, Reply]
    ) -> None:
        try:
            reply = await rest
        finally:
            self._under_way -= 1
        connection.reply(request, reply)

    # Accepting. One connection a turn of the loop: a busy process leaves the next one to others.

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                _log.error("a connection cannot be accepted: %s", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            await self._take(accepted)

    async def _accept_waiting(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            await self._take(accepted)

    async def _take(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(lambda: Connection(self), accepted)
        except OSError:  # the caller is gone again
            accepted.close()

    # Limits of time.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.turn_s = now_s = self._loop.time()
            for connection in [*self._connections]:
                self._look_at(connection, now_s)

    def _look_at(self, connection: Connection, now_s: float) -> None:
        limits, age_s = self._limits, now_s - connection.since_s
        if connection.choked_since_s is not None:
            if now_s - connection.choked_since_s > limits.choked_s:
                connection.abort()
            return
        match connection.stage:
            case stage if stage is IDLE and age_s > limits.idle_s:
                # A little of an answer that its caller never reads would hold off an orderly end.
                connection.abort()
            case stage if stage is HEAD and age_s > limits.head_s:
                connection.refuse(
                    HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "The head took too long."
                )
            case stage if stage is BODY and age_s > limits.body_s:
                connection.refuse(
                    HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "The body took too long."
                )

    async def _drain(self, within_s: float) -> None:
        self.draining = True
        began_s = self._loop.time()
        while self._connections and self._loop.time() < began_s + within_s:
            if self._loop.time() > began_s + LINGER_S:
                for connection in [*self._connections]:
                    if connection.stage is IDLE:
                        connection.close()
            await asyncio.sleep(0.05)
        still = sum(connection.stage is ANSWERING for connection in self._connections)
        if still:
            _log.error("stopped with %d request(s) unanswered after %g s", still, within_s)
        for connection in [*self._connections]:
            connection.abort()
        for task in self._tasks:
            task.cancel()


def _raise_open_files() -> None:
    """Allow as many connections as the machine lets this user have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
