"""Which nodes are up: a small object for each in shared storage, written again and again.

A node tells where it answers and what it serves or refuses, whichever machine it is on.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.core.processes import is_alive
from konveyer.core.storage import Listed, ObjectMissing, Storage, StorageUnavailable
from konveyer.execution.serving.report import Refused, Report, Serving

BEAT_EVERY_S = 3.0
# A node that was not heard of for so long is taken to be gone: a storage that hangs costs ten
# seconds, and the next beat comes after that.
GONE_AFTER_S = 15.0
_FORGOTTEN_AFTER_S = 3600.0
_KNOWN_WITHIN_S = 1.0
_log = logging.getLogger(__name__)


class Presence(Struct, frozen=True, kw_only=True):
    """A running node and where it answers. `silent_s` ago it was heard of, when this was read."""

    environment: str
    url: str
    host: str
    pid: int
    started_us: int
    report: Report = Report()
    silent_s: float = 0.0

    @property
    def is_heard(self) -> bool:
        """Whether it said so lately. One that is not heard may be about to be taken for gone."""
        return self.silent_s < 2 * BEAT_EVERY_S

    def serves(
        self, application: str, api_version: int, digest: str, *, side: str = "live"
    ) -> bool:
        asked = Serving(application=application, api_version=api_version, digest=digest, side=side)
        return asked in self.report.serving

    def refusal(self, application: str, api_version: int, digest: str) -> Refused | None:
        """What the node says of not serving this bundle; None when it says nothing."""
        asked = (application, api_version, digest)
        found = (
            r for r in self.report.refused if (r.application, r.api_version, r.digest) == asked
        )
        return next(found, None)


@contextmanager
def announced(
    storage: Storage, environment: str, url: str, report: Callable[[], Report]
) -> Iterator[Callable[[], None]]:
    """Be known under `url` for the block; gives a function that tells the `report` at once.

    All of it is done by a thread of its own: a storage that is down or slow holds nobody up, and
    the node is known again with the first beat after it came back.
    """
    presence = Presence(
        environment=environment,
        url=url,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_us=now_us(),
    )
    name = f"{_folder(environment)}/{presence.host}-{presence.pid}.json"
    wake, ended, began = threading.Event(), threading.Event(), threading.Event()

    is_heard = True

    def beat() -> None:
        nonlocal is_heard
        while not ended.is_set():
            wake.clear()
            try:
                now = msgspec.structs.replace(presence, report=report())
                storage.write(name, msgspec.json.encode(now))
                is_heard = True
            except StorageUnavailable as error:
                if is_heard:
                    _log.error("this node cannot say that it is up: %s", error)
                is_heard = False
            began.set()
            wake.wait(BEAT_EVERY_S)

    def tell(*, end: bool = False) -> None:
        if end:
            ended.set()
        wake.set()

    thread = threading.Thread(target=beat, name="presence")
    thread.start()
    began.wait(_KNOWN_WITHIN_S)
    try:
        yield tell
    finally:
        tell(end=True)
        thread.join()
        try:
            if is_heard:
                storage.remove(name)
        except KonveyerError as error:
            _log.error("this node cannot say that it stops: %s", error)


def nodes_of(storage: Storage, environment: str) -> list[Presence]:
    """The nodes that are up, newest first.

    One of this machine is up while its process lives; one of another was heard of lately. Times are
    compared with the clock of this process, which must be right to a few seconds.
    """
    entries = storage.listed(_folder(environment))
    looked_us = now_us()  # reading them may take long
    found = (_presence(storage, entry, looked_us) for entry in entries)
    up = [presence for presence in found if presence is not None]
    return sorted(up, key=lambda presence: -presence.started_us)


def _presence(storage: Storage, entry: Listed, looked_us: int) -> Presence | None:
    try:
        presence = msgspec.json.decode(storage.read(entry.name), type=Presence)
    except ObjectMissing:
        return None
    except msgspec.MsgspecError:
        _log.error("%s cannot be read: it is not of this version", entry.name)
        return None
    silent_s = (looked_us - entry.written_us) / 1e6
    is_dead = presence.host == socket.gethostname() and not is_alive(presence.pid)
    if is_dead or silent_s > _FORGOTTEN_AFTER_S:
        storage.remove(entry.name)
    if is_dead or silent_s > GONE_AFTER_S:
        return None
    return msgspec.structs.replace(presence, silent_s=max(0.0, silent_s))


def _folder(environment: str) -> str:
    return f"nodes/{environment}"
