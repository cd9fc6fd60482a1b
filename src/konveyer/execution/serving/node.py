"""A node: one process that serves all versions of its environment until it is told to stop."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvicorn

from konveyer.core.sockets import listening
from konveyer.core.storage import Storage
from konveyer.execution.serving import metrics
from konveyer.execution.serving.gateway import Gateway
from konveyer.execution.serving.json_logs import log_json
from konveyer.execution.serving.prediction_log import PredictionLog, log_folder
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.router import Router

REFRESH_EVERY_S = 0.2
DRAIN_WITHIN_S = 10
_log = logging.getLogger(__name__)


def run_node(
    router: Router,
    *,
    storage: Storage,
    logs: Path,
    host: str,
    port: int,
    advertised: str | None = None,
    parent: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then finish the requests under way and write the log.

    The node is known in `storage` under the URL `advertised`, where that is not where it listens.
    The prediction log is written below the folder `logs`.

    The end of the process `parent`, when given, is such a signal too.

    Port 0 takes a free one; `presence.nodes_of` tells which.
    """
    log_json()
    listener = listening(host, port)
    address = listener.getsockname()
    url = f"http://{address[0]}:{address[1]}"
    router.refresh()
    log = PredictionLog(log_folder(logs, router.environment))
    server = uvicorn.Server(
        uvicorn.Config(
            Gateway(router, log),
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=DRAIN_WITHIN_S,
            server_header=False,
            date_header=False,
        )
    )
    # A signal may come before uvicorn listens for it, and uvicorn raises it again when it has
    # stopped: neither must end the process before the log is written.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    stopping = threading.Event()
    with announced(storage, router.environment, advertised or url, lambda: router.report) as tell:
        follower = threading.Thread(target=_follow, args=(router, stopping, server, parent, tell))
        follower.start()
        try:
            _log.info("serving %s at %s", router.environment, url)
            server.run(sockets=[listener])
        finally:
            stopping.set()
            follower.join()
            log.close()


def _follow(
    router: Router,
    stopping: threading.Event,
    server: uvicorn.Server,
    parent: int | None,
    tell: Callable[[], None],
) -> None:
    while not stopping.wait(REFRESH_EVERY_S):
        if parent is not None and os.getppid() != parent:
            server.should_exit = True
        try:
            if router.refresh():
                tell()
                metrics.LIVE.set(len(router.live))
                _log.info("now serving %d version(s)", len(router.live))
        except (OSError, msgspec.MsgspecError):
            _log.exception("the desired versions cannot be read")
