"""How a gateway answers over a socket: what counts as latency, and what comes after the reply."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
import uvloop

from konveyer.bundle.store import BundleStore
from konveyer.core.sockets import listening
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.desired import Desired, DesiredVersion, Share, write_desired
from konveyer.execution.serving.exchange import Answer, Reply, Request
from konveyer.execution.serving.gateway import Gateway
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.predictor import ask_alone
from konveyer.execution.serving.router import Router
from konveyer.execution.serving.segments import log_folder
from konveyer.execution.serving.server import Limits, Server
from konveyer.execution.serving.shadows import Shadows
from konveyer.feature_store.online.base import Record
from konveyer.feature_store.online.codec import RecordCodec, encode_key
from konveyer.feature_store.online.memory import MemoryOnlineStore
from tests.support import wait_for
from tests.unit.serving.test_router import COLUMNS, VIEW, desire, made_router, packed

BODY = b'{"client_id": 1}'
PREDICT = b"POST /scoring/v1/predict HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
BUSY_S = 0.3


@contextmanager
def gateway_of(router: Router, root: Path) -> Iterator[tuple[Gateway, Shadows]]:
    """One that has taken up what is desired."""
    router.refresh()
    log = PredictionLog(log_folder(root, "prod"))
    shadows = Shadows(log, ask_alone, lambda: 0)
    try:
        yield Gateway(router, log, shadows, root, is_stopping=lambda: False), shadows
    finally:
        router.close()
        log.close()


async def serve(answer: Answer, ask: Callable[[Sequence[socket.socket]], None]) -> None:
    """Let three callers ask, each on a connection of its own."""
    stop, listener = asyncio.Event(), listening("127.0.0.1", 0)
    address = listener.getsockname()
    server = Server(answer, Limits())
    serving = asyncio.create_task(server.serve(listener, stop, 1.0))
    callers = [socket.create_connection(address, timeout=10) for _ in range(3)]
    await asyncio.to_thread(wait_for, lambda: server.connected == len(callers))
    await asyncio.to_thread(ask, callers)
    for caller in callers:
        caller.close()
    stop.set()
    await serving


def test_what_a_request_waits_to_be_taken_up_counts(tmp_path: Path) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    desire(tmp_path, packed(bundles, 1).digest)
    is_busy = threading.Event()

    async def answer(request: Request) -> Reply:
        if request.url != b"/busy":
            return await gateway.answer(request)
        is_busy.set()
        time.sleep(BUSY_S)  # noqa: ASYNC251 - as a large request would
        return Reply(200, b"")

    def ask(callers: Sequence[socket.socket]) -> None:
        first, second, third = callers
        first.sendall(b"GET /busy HTTP/1.1\r\n\r\n")
        is_busy.wait(10)
        # Both have come when the process looks again, and the second keeps it busy once more.
        second.sendall(b"GET /busy HTTP/1.1\r\n\r\n")
        third.sendall(PREDICT)
        assert third.recv(1000).startswith(b"HTTP/1.1 404 ")  # nobody is known

    router = made_router(tmp_path, bundles, keys_are_required=False)
    with gateway_of(router, tmp_path) as (gateway, _):
        uvloop.run(serve(answer, ask))
    (row,) = read_predictions(FolderStorage(tmp_path), "prod")
    assert row["latency_us"] / 1e6 > BUSY_S


def test_a_reply_has_gone_before_a_shadow_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shadow's model keeps the process busy until the caller has the reply."""
    bundles, online = BundleStore(tmp_path / "bundles"), MemoryOnlineStore()
    row = pa.Table.from_pylist([{"amount": 1.5, "city": "Oslo"}])
    (value,) = RecordCodec(COLUMNS).encode(row, [0])
    online.put(VIEW.space, [Record(encode_key([1]), value)])
    version = DesiredVersion(
        application="scoring",
        api_version=1,
        digest=packed(bundles, 1).digest,
        release="r-1",
        since_us=0,
        shadows=(Share(digest=packed(bundles, 2).digest, release="r-2", per_mille=1000),),
    )
    write_desired(FolderStorage(tmp_path), Desired(environment="prod", versions=(version,)))
    has_come = threading.Event()
    had_come: list[bool] = []

    async def predict(rows: Sequence[object]) -> list[tuple[float]]:
        had_come.append(has_come.wait(5))
        return [(0.5,) for _ in rows]

    def ask(callers: Sequence[socket.socket]) -> None:
        callers[0].sendall(PREDICT)
        assert callers[0].recv(1000).startswith(b"HTTP/1.1 200 ")
        has_come.set()

    async def serve_and_shadow() -> None:
        await serve(gateway.answer, ask)
        await shadows.close(5)

    router = made_router(tmp_path, bundles, online, keys_are_required=False)
    with gateway_of(router, tmp_path) as (gateway, shadows):
        (shadow,) = router.find("scoring", 1).shadows
        monkeypatch.setattr(shadow.loaded.lane, "predict", predict)
        uvloop.run(serve_and_shadow())
    assert had_come == [True]
    rows = read_predictions(FolderStorage(tmp_path), "prod")
    assert sorted(row["side"] for row in rows) == ["live", "shadow"]
