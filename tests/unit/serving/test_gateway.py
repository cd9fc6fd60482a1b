"""How long a request took, as metrics and the prediction log tell it."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import uvloop

from konveyer.bundle.store import BundleStore
from konveyer.core.sockets import listening
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.exchange import Reply, Request
from konveyer.execution.serving.gateway import Gateway
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.predictor import ask_alone
from konveyer.execution.serving.segments import log_folder
from konveyer.execution.serving.server import Limits, Server
from konveyer.execution.serving.shadows import Shadows
from tests.support import wait_for
from tests.unit.serving.test_router import desire, made_router, packed

BODY = b'{"client_id": 1}'
PREDICT = b"POST /scoring/v1/predict HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
BUSY_S = 0.3


def test_what_a_request_waits_to_be_taken_up_counts(tmp_path: Path) -> None:
    bundles = BundleStore(tmp_path / "bundles")
    desire(tmp_path, packed(bundles, 1).digest)
    router = made_router(tmp_path, bundles, keys_are_required=False)
    router.refresh()
    log = PredictionLog(log_folder(tmp_path, "prod"))
    shadows = Shadows(log, ask_alone, lambda: 0)
    gateway = Gateway(router, log, shadows, tmp_path, is_stopping=lambda: False)
    is_busy = threading.Event()

    async def answer(request: Request) -> Reply:
        if request.url != b"/busy":
            return await gateway.answer(request)
        is_busy.set()
        time.sleep(BUSY_S)  # noqa: ASYNC251 - as a large request would
        return Reply(200, b"")

    def ask(*callers: socket.socket) -> None:
        first, second, third = callers
        first.sendall(b"GET /busy HTTP/1.1\r\n\r\n")
        is_busy.wait(10)
        # Both have come when the process looks again, and the second keeps it busy once more.
        second.sendall(b"GET /busy HTTP/1.1\r\n\r\n")
        third.sendall(PREDICT)
        third.settimeout(10)
        assert third.recv(1000).startswith(b"HTTP/1.1 404 ")  # nobody is known

    async def serve() -> None:
        stop, listener = asyncio.Event(), listening("127.0.0.1", 0)
        address = listener.getsockname()
        server = Server(answer, Limits())
        serving = asyncio.create_task(server.serve(listener, stop, 1.0))
        callers = [socket.create_connection(address) for _ in range(3)]
        await asyncio.to_thread(wait_for, lambda: server.connected == len(callers))
        await asyncio.to_thread(ask, *callers)
        for caller in callers:
            caller.close()
        stop.set()
        await serving

    try:
        uvloop.run(serve())
    finally:
        router.close()
        log.close()
    (row,) = read_predictions(FolderStorage(tmp_path), "prod")
    assert row["latency_us"] / 1e6 > BUSY_S
