"""Shared storage for gates: one that does not answer for a while fails no release."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from konveyer.bundle.store import Bundle, Bundles
from konveyer.core.storage import Listed, Storage, StorageUnavailable
from konveyer.execution.serving.presence import BEAT_EVERY_S, GONE_AFTER_S

T = TypeVar("T")
LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


class _Patient:
    """What cannot be reached is asked again and again, until storage has been away for `away_s`
    without a break; then the error is raised.

    Nodes could not say either that they are up: once storage is back they get the time to.
    """

    def __init__(self, away_s: float) -> None:
        self._away_s = away_s
        self._since_s: float | None = None

    def _asked(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                answer = ask()
            except StorageUnavailable as error:
                self._wait(error)
                continue
            since_s, self._since_s = self._since_s, None
            if since_s is None or time.monotonic() - since_s < BEAT_EVERY_S:
                return answer
            # What was answered just now may be what nodes said before, and looks as if they were
            # gone.
            time.sleep(GONE_AFTER_S)

    def _wait(self, error: StorageUnavailable) -> None:
        now_s = time.monotonic()
        if self._since_s is None:
            self._since_s = now_s
            _log.warning("waiting for the storage: %s", error)
        if now_s - self._since_s >= self._away_s:
            raise error
        time.sleep(LOOK_EVERY_S)


class PatientStorage(_Patient):
    """Shared storage that may be away for a while."""

    def __init__(self, storage: Storage, away_s: float) -> None:
        super().__init__(away_s)
        self._storage = storage

    def read(self, name: str) -> bytes:
        return self._asked(partial(self._storage.read, name))

    def write(self, name: str, content: bytes) -> None:
        self._asked(partial(self._storage.write, name, content))

    def download(self, name: str, path: Path) -> None:
        self._asked(partial(self._storage.download, name, path))

    def upload(self, path: Path, name: str) -> None:
        self._asked(partial(self._storage.upload, path, name))

    def remove(self, name: str) -> None:
        self._asked(partial(self._storage.remove, name))

    def listed(self, folder: str) -> list[Listed]:
        return self._asked(partial(self._storage.listed, folder))


class PatientBundles(_Patient):
    """Bundles whose storage may be away for a while. Nobody else who reads them waits with it."""

    def __init__(self, bundles: Bundles, away_s: float) -> None:
        super().__init__(away_s)
        self._bundles = bundles

    def open(self, digest: str) -> Bundle:
        return self._asked(partial(self._bundles.open, digest))
