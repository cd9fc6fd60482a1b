"""A node's disk and shared storage, kept together while the node runs."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from konveyer.core.errors import KonveyerError
from konveyer.core.pauses import doubled
from konveyer.execution.serving import metrics
from konveyer.execution.serving.mirror import Mirror
from konveyer.execution.serving.shipping import Shipper

LOOK_EVERY_S, SHIP_EVERY_S = 0.5, 2.0
_LONGEST_PAUSE_S, _HERE_WITHIN_S = 5.0, 5.0
_LOOK = "look at shared storage"
_log = logging.getLogger(__name__)


@contextmanager
def attached(mirror: Mirror, shipper: Shipper) -> Iterator[None]:
    """Bring what is desired here, and ship what is logged, until the block ends.

    A large bundle that is under way keeps nobody from looking for a rollback or a revoked key.

    When the block begins all is here that could be had within seconds. What is logged in the block
    is shipped before this returns, when shared storage answers; otherwise it stays for the next
    start.
    """
    failing = {_LOOK}  # until the first look
    look = _Repeated(_LOOK, mirror.refresh, failing)
    bring = _Repeated("bring bundles", mirror.bring, failing)
    ship = _Repeated("ship the prediction log", shipper.ship, failing)
    threads = [look.started(LOOK_EVERY_S), ship.started(SHIP_EVERY_S)]
    look.tried.wait(_HERE_WITHIN_S)
    threads.append(bring.started(LOOK_EVERY_S))
    bring.tried.wait(_HERE_WITHIN_S)
    try:
        yield
    finally:
        mirror.stop()
        for work in (look, bring, ship):
            work.ended.set()
        for thread in threads:
            thread.join()
        ship.try_once()


class _Repeated:
    """Work that is done again and again; after an error less often, and one line says so.

    `failing` names the works for which storage does not answer, of all that share it. Work that
    gives False has left something to be done, and says nothing of a storage.
    """

    def __init__(self, what: str, work: Callable[[], object], failing: set[str]) -> None:
        self.ended, self.tried = threading.Event(), threading.Event()
        self._what, self._work, self._failing = what, work, failing
        self._failures = 0

    def started(self, every_s: float) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(every_s,), name=self._what)
        thread.start()
        return thread

    def try_once(self) -> None:
        try:
            is_done = self._work() is not False
        except (KonveyerError, OSError) as error:
            if not self._failures:
                _log.error("cannot %s: %s", self._what, error)
            self._failures += 1
            self._failing.add(self._what)
            metrics.STORAGE_UP.set(0)
        except Exception:  # noqa: BLE001 - logged
            # The thread must live: without it the node would never learn of a release again.
            _log.exception("cannot %s", self._what)
            self._failures += 1
        else:
            if is_done:
                if self._failures:
                    _log.info("can %s again", self._what)
                self._failures = 0
                self._failing.discard(self._what)
                metrics.STORAGE_UP.set(0 if self._failing else 1)

    def _run(self, every_s: float) -> None:
        while not self.ended.is_set():
            self.try_once()
            self.tried.set()
            self.ended.wait(doubled(every_s, self._failures + 1, _LONGEST_PAUSE_S))
