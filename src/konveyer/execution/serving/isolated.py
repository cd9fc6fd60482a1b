"""The isolated lane: a model that runs in a process of its own, asked over a Unix socket.

Any number of requests are under way on one connection; the worker answers what has come in while
it was busy as one batch.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.manifest import ModelSpec
from konveyer.bundle.native.frames import framed, taken
from konveyer.core.digest import short
from konveyer.core.infinite import may_hold_infinite
from konveyer.core.schema import ColumnType
from konveyer.execution.serving.errors import (
    LaneNotReady,
    LanePreparing,
    ModelTimedOut,
    ModelUnavailable,
)
from konveyer.execution.serving.room import Portion, Room
from konveyer.feature_store.online.codec import Value

_encode = msgspec.json.Encoder(decimal_format="number").encode
Rows = Sequence[Sequence[Value]]


def _encoded(message: dict[str, Any]) -> bytes:
    """Python's JSON, which the worker reads, has a word for what is infinite; msgspec has not."""
    if may_hold_infinite(message["rows"]):
        return json.dumps(message, default=float).encode()
    return _encode(message)


def socket_of(folder: Path, digest: str) -> Path:
    """Where the worker of a bundle listens, in the folder of its families."""
    return folder / f"{short(digest)}.sock"


def why_of(socket: Path) -> Path:
    """A file with the reason why nothing listens at `socket`, once something has gone wrong."""
    return socket.with_suffix(".why")


class _Reply(msgspec.Struct, frozen=True):
    id: int
    outputs: list[list[Any]] | None = None
    error: str = ""


_decode = msgspec.json.Decoder(_Reply).decode


class _Connection(asyncio.Protocol):
    """One connection and the requests that wait for their answers on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_open = True
        self._waiting: dict[int, asyncio.Future[_Reply | None]] = {}
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._last = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Of a stream; uvloop's own is no `asyncio.Transport`.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for body in taken(self._buffer):
            reply = _decode(body)
            waiting = self._waiting.pop(reply.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.is_open = False
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    async def ask(self, rows: Rows, limit_s: float) -> _Reply | None:
        """The reply; None when the connection ends before it comes."""
        assert self._transport is not None  # noqa: S101 - it was made
        self._last += 1
        number, future = self._last, self.loop.create_future()
        self._waiting[number] = future
        self._transport.write(
            framed(_encoded({"id": number, "rows": rows, "until": time.monotonic() + limit_s}))
        )
        # `asyncio.timeout` needs a task, and a request begins without one.
        limit = self.loop.call_later(limit_s, _expire, future)
        try:
            reply: _Reply | None = await future
        finally:
            limit.cancel()
            self._waiting.pop(number, None)
        return reply

    def close(self) -> None:
        """From any thread; also when the loop of the connection has ended."""
        if self._transport is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._transport.abort)


def _expire(waiting: "asyncio.Future[_Reply | None]") -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


class IsolatedLane:
    """Asks the worker whose socket is at `path`. Connects again after the worker was restarted.

    Requests that wait for it take of `portion`; more of them are refused.
    """

    def __init__(self, path: Path, spec: ModelSpec, portion: Portion | None = None) -> None:
        self._portion = portion or Portion(Room())
        self._path, self._limit_s = path, spec.isolated.limit_ms / 1000
        self._outputs = [column.dtype is ColumnType.FLOAT64 for column in spec.outputs]
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[_Connection] | None = None

    def check_ready(self) -> None:
        if self._path.exists():
            return
        why = self._why()
        if not why:
            raise LanePreparing(
                "The model's process has not started yet.",
                hint="its environment is built, or it starts; it is asked for again",
            )
        raise LaneNotReady(
            f"The model's process has not started{why}.",
            hint="it is started again; the node's log tells more",
        )

    async def predict(self, rows: Rows) -> list[tuple[Value, ...]]:
        try:
            with self._portion:
                connection = await self._connected()
                reply = await connection.ask(rows, self._limit_s)
        except TimeoutError:
            raise ModelTimedOut(
                f"The model did not answer within {self._limit_s * 1000:g} ms.",
                hint="raise [isolated] limit_ms of the project, or make the model faster",
            ) from None
        if reply is None:
            raise self._unavailable("ended before it answered")
        if reply.outputs is None:
            raise ModelFailed(
                f"The model failed: {reply.error}.",
                hint="see the features in the prediction log; correct the project",
            )
        return [self._checked(row) for row in reply.outputs]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _checked(self, row: list[Any]) -> tuple[Value, ...]:
        if len(row) != len(self._outputs):
            raise ModelFailed(
                f"The model gave {len(row)} outputs, its contract has {len(self._outputs)}.",
                hint="let train() return a model that always gives the same outputs",
            )
        for value, is_number in zip(row, self._outputs, strict=True):
            if is_number != isinstance(value, int | float) and (is_number or value is not None):
                given = "nothing" if value is None else "a text" if is_number else "a number"
                wanted = ColumnType.FLOAT64 if is_number else ColumnType.STRING
                raise ModelFailed(
                    f"The model gave {given} where its contract has {wanted}.",
                    hint="let train() return a model that always gives the same outputs",
                )
        try:
            return tuple(
                float(value) if is_number else value
                for value, is_number in zip(row, self._outputs, strict=True)
            )
        except OverflowError:  # of an integer
            raise ModelFailed(
                "The model failed: the answer is not a finite number.",
                hint="see the features in the prediction log; correct the project",
            ) from None

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        found = self._connection
        if found is not None and found.is_open and found.loop is loop:
            return found
        # Requests that come meanwhile wait for the same one: the worker accepts few at a time.
        if self._connecting is None or self._connecting.get_loop() is not loop:
            self._connecting = loop.create_task(self._connect(loop))
        return await asyncio.shield(self._connecting)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        try:
            _, connection = await loop.create_unix_connection(
                lambda: _Connection(loop), str(self._path)
            )
        except OSError:
            raise self._unavailable("is not there") from None
        finally:
            self._connecting = None
        self._connection = connection
        return connection

    def _unavailable(self, what: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"The process of the model {what}{self._why()}.",
            hint="it is started again; try again in a second",
        )

    def _why(self) -> str:
        with suppress(OSError):
            return f": {why_of(self._path).read_text()}"
        return ""
