"""Shadow predictions: copies of requests for releases whose answers nobody gets.

They are made after the reply has gone, one at a time, and only while the process has time for them.
"""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from konveyer.core.errors import InternalError, KonveyerError
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.router import Endpoint, LiveVersion
from konveyer.execution.serving.sides import WHOLE

MOST_WAITING = 256
# With more requests under way than this a process is busy, and copies wait.
BUSY_WITH = 8
_log = logging.getLogger(__name__)
Ask = Callable[[LiveVersion, list[Any], Call, PredictionLog, bool], Awaitable[object]]


class Shadows:
    """A bounded queue of copies. What does not fit is dropped and counted."""

    def __init__(self, log: PredictionLog, ask: Ask, under_way: Callable[[], int]) -> None:
        self._log, self._ask, self._under_way = log, ask, under_way
        self._waiting: deque[tuple[LiveVersion, list[Any], Call, bool]] = deque()
        self._task: asyncio.Task[None] | None = None

    def offer(self, endpoint: Endpoint, rows: list[Any], call: Call, *, is_single: bool) -> None:
        """Let those shadows see the request whose share it falls into."""
        place = (
            int.from_bytes(hashlib.blake2b(call.request_id.encode(), digest_size=8).digest())
            % WHOLE
        )
        for shadow in endpoint.shadows:
            if place >= shadow.per_mille:
                continue
            if len(self._waiting) >= MOST_WAITING:
                shadow.meter.shadows_dropped.inc()
                continue
            copy = Call(
                request_id=call.request_id,
                environment=call.environment,
                started_s=0.0,
                sent_bytes=call.sent_bytes,
                caller=call.caller,
                version=shadow,
            )
            self._waiting.append((shadow, rows, copy, is_single))
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self, within_s: float) -> None:
        """Make the copies that wait, as far as time allows."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within_s)
        for shadow, *_ in self._waiting:
            shadow.meter.shadows_dropped.inc()

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.005 if self._under_way() > BUSY_WITH else 0)
            if self._under_way() > BUSY_WITH:
                continue
            version, rows, call, is_single = self._waiting.popleft()
            call.started_s = time.perf_counter()
            status = 200
            try:
                await self._ask(version, rows, call, self._log, is_single)
            except KonveyerError as error:
                status = int(error.status)
                call.log_failure(self._log, type(error))
            except Exception:  # noqa: BLE001 - nobody gets it: it is logged, and the next one comes
                _log.exception("shadow %s failed", version.release)
                status = int(InternalError.status)
                call.log_failure(self._log, InternalError)
            version.meter.answered(status, call.seconds(), len(rows))
        self._task = None
