"""One process of a node: it serves all versions of its environment until it is told to stop."""

import asyncio
import gc
import logging
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path

import uvloop

from konveyer.execution.serving import metrics
from konveyer.execution.serving.control import BEAT, BEAT_EVERY_S, READY
from konveyer.execution.serving.gateway import Gateway
from konveyer.execution.serving.json_logs import log_json
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.predictor import ask_alone
from konveyer.execution.serving.router import Router
from konveyer.execution.serving.server import Limits, Server
from konveyer.execution.serving.shadows import Shadows
from konveyer.execution.serving.siblings import has_told, tell

REFRESH_EVERY_S = 0.2
DRAIN_WITHIN_S = 10.0
_SHADOWS_WITHIN_S = 1.0
_log = logging.getLogger(__name__)


def run_process(
    router: Router,
    *,
    log: PredictionLog,
    folder: Path,
    number: int,
    listener: socket.socket,
    control: socket.socket,
    limits: Limits,
) -> None:
    """Serve until the parent says so through `control`, or is gone, or SIGTERM.

    Then the requests under way are answered and the log is closed. The processes of a node share
    `folder`; each has a `number`.
    """
    log_json()

    follower = Follower(router, folder, number)

    def keep_following() -> None:
        while not done.wait(REFRESH_EVERY_S):
            follower.follow()

    follower.follow()
    done = threading.Event()
    thread = threading.Thread(target=keep_following, name="follower")
    thread.start()
    try:
        uvloop.run(_serve(router, log, folder, listener, control, limits))
    finally:
        done.set()
        thread.join()
        router.close()
        log.close()


async def _serve(
    router: Router,
    log: PredictionLog,
    folder: Path,
    listener: socket.socket,
    control: socket.socket,
    limits: Limits,
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    control.setblocking(False)
    loop.add_reader(control, _heard, loop, control, stop)

    shadows = Shadows(log, ask_alone, lambda: server.under_way)
    gateway = Gateway(router, log, shadows, folder, is_stopping=stop.is_set)
    server = Server(gateway.answer, limits)
    beating = loop.create_task(_beat(control, stop))
    try:
        await server.serve(listener, stop, DRAIN_WITHIN_S)
        await shadows.close(_SHADOWS_WITHIN_S)
    finally:
        beating.cancel()


def _heard(loop: asyncio.AbstractEventLoop, control: socket.socket, stop: asyncio.Event) -> None:
    """Whatever the parent says means stop, and so does its end."""
    with suppress(BlockingIOError):
        with suppress(ConnectionError):
            control.recv(64)
        loop.remove_reader(control)
        stop.set()


async def _beat(control: socket.socket, stop: asyncio.Event) -> None:
    """Tell the parent that the loop turns. Its end is seen here too: of a parent that had not read
    all beats the loop does not tell, since the connection ends with an error.
    """
    said = READY
    while True:
        try:
            control.send(said)
        except BlockingIOError:
            pass
        except OSError:
            stop.set()
        said = BEAT
        await asyncio.sleep(BEAT_EVERY_S)


class Follower:
    """Keeps a router as its document says, and tells the node what the process serves since."""

    def __init__(self, router: Router, folder: Path, number: int) -> None:
        self._router, self._folder, self._number = router, folder, number
        self._has_news = self._is_unheard = False

    def follow(self) -> None:
        """One look. Raises nothing: without further ones the node would hear of no rollback and of
        no revoked key.
        """
        try:
            if self._router.refresh():
                self._has_news = True
                metrics.LIVE.set(len(self._router.endpoints))
                _log.info("now serving %d version(s)", len(self._router.endpoints))
                # What is loaded stays: later collections need not look at it.
                gc.collect()
                gc.freeze()
        except Exception:  # noqa: BLE001 - logged
            _log.exception("the desired versions cannot be read")
        if self._has_news or not has_told(self._folder, self._number):
            self._tell()

    def _tell(self) -> None:
        """What cannot be written, because a disk is full, is tried again with the next look."""
        try:
            tell(self._folder, self._number, self._router.report)
        except OSError as error:
            if not self._is_unheard:
                _log.error("cannot tell what this process serves: %s", error)
            self._is_unheard = True
        else:
            self._has_news = self._is_unheard = False
