"""Reading an online store that is on a network, without holding the event loop.

A few threads read. What waits when a thread is free is read at once, in one call of the store: the
more requests there are, the less each costs.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

from konveyer.core.errors import KonveyerError
from konveyer.execution.serving.errors import StoreTooSlow
from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable

THREADS = 2
_MOST_AT_ONCE = 64
Places = Sequence[tuple[str, bytes]]
_Records = list[bytes | None]
_log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    places: Places
    answer: "asyncio.Future[_Records]"
    loop: asyncio.AbstractEventLoop


class RemoteReads:
    """`get` for coroutines. Threads that hang on a store that is gone hold up nobody else."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._waiting: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        for number in range(THREADS):
            threading.Thread(target=self._read, name=f"online-{number}", daemon=True).start()

    async def get(self, places: Places, *, within_s: float) -> _Records:
        """Like `OnlineStore.get`; raises when the store fails or does not answer in time."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Records] = loop.create_future()
        deadline = loop.call_later(within_s, _too_slow, answer, within_s)
        self._waiting.put(_Asked(places, answer, loop))
        try:
            return await answer
        finally:
            deadline.cancel()

    def close(self) -> None:
        for _ in range(THREADS):
            self._waiting.put(None)

    def _read(self) -> None:
        while True:
            batch = self._batch()
            if not batch:
                return
            asked = [one for one in batch if not one.answer.done()]
            if not asked:
                continue
            places = [place for one in asked for place in one.places]
            result: _Records | KonveyerError
            try:
                result = self._store.get(places)
            except KonveyerError as error:
                result = error
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, the thread goes on
                _log.exception("the online store cannot be read")
                result = OnlineStoreUnavailable(
                    f"The online store cannot be read: {type(error).__name__}.",
                    hint="see the log of the node",
                )
            asked[0].loop.call_soon_threadsafe(_deliver, asked, result)

    def _batch(self) -> list[_Asked]:
        """All that waits, at least one; empty when the reads are closed."""
        first = self._waiting.get()
        if first is None:
            return []
        batch = [first]
        while len(batch) < _MOST_AT_ONCE:
            try:
                one = self._waiting.get_nowait()
            except queue.Empty:
                break
            if one is None:
                self._waiting.put(None)
                break
            batch.append(one)
        return batch


def _deliver(asked: list[_Asked], result: _Records | KonveyerError) -> None:
    start = 0
    for one in asked:
        end = start + len(one.places)
        if not one.answer.done():
            if isinstance(result, KonveyerError):
                one.answer.set_exception(type(result)(result.message, hint=result.hint))
            else:
                one.answer.set_result(result[start:end])
        start = end


def _too_slow(answer: "asyncio.Future[_Records]", within_s: float) -> None:
    if not answer.done():
        answer.set_exception(
            StoreTooSlow(
                f"The online store did not answer within {within_s * 1000:g} ms.",
                hint="send it again; [serving] fallbacks in the model's model.toml can stand in",
            )
        )
