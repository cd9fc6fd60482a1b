"""What an environment should serve, brought from shared storage to the disk of this machine.

The node itself reads that disk alone: it goes on, and starts again, whatever shared storage does.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from konveyer.bundle.store import BundleStore
from konveyer.core.digest import short
from konveyer.core.errors import KonveyerError
from konveyer.core.files import locked
from konveyer.core.pauses import doubled
from konveyer.core.storage import FolderStorage, ObjectMissing, Storage, StorageUnavailable
from konveyer.execution.serving.desired import (
    Desired,
    DesiredVersion,
    desired_name,
    read_absent,
    read_desired,
    write_absent,
    write_desired,
)
from konveyer.execution.serving.report import Refused

# A bundle that could not be brought is tried again after a pause that doubles up to this.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
# A bundle that is here is read again after so long, and so many times as long as reading took.
CHECK_EVERY_S, _CHECK_REST = 5.0, 50.0
# A rollback finds the bundle here, and a process that was just told of a new one the old one.
KEEP_S = 600.0
_BEING_BROUGHT = "its bundle is being brought"
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why a bundle is not here, and when to ask for it again (monotonic).

    Where storage is away, nothing is known to be wrong with it.
    """

    reason: str
    is_away: bool
    tries: int
    again_at_s: float


class Mirror:
    """Keeps `cache` as shared storage says: its document, and the bundles that it names.

    A version whose bundle is not whole and undamaged here does not get into the document of the
    cache: the one before stays there, and the reason is noted beside it. Without a document in
    shared storage, or with one that cannot be read, the cache stays as it is. Bundles that have not
    been desired for `keep_s` are removed. Those here are read again one after the other, one each
    `check_every_s`, and brought again where a disk has damaged them.

    One thread calls `refresh` and another one `bring`: while a large bundle is brought, a rollback
    or a revoked key gets into the cache.
    """

    def __init__(
        self,
        environment: str,
        *,
        shared: Storage,
        cache: FolderStorage,
        bundles: BundleStore,
        keep_s: float = KEEP_S,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self._environment, self._shared, self._cache = environment, shared, cache
        self._bundles, self._keep_s = bundles, keep_s
        self._wanted_at_s: dict[str, float] = {}
        self._here: set[str] = set()
        self._check_every_s, self._checked_s = check_every_s, dict[str, float]()
        self._check_at_s = time.monotonic() + check_every_s
        self._troubles: dict[str, _Trouble] = {}
        self._seen: Desired | None = None
        self._is_stopped = threading.Event()

    def refresh(self) -> None:
        """One look at shared storage: what it says is published, as far as it is here.

        Waits for no bundle. Raises `StorageUnavailable` when there is no answer.
        """
        with self._publishing():
            desired = self._desired()
            if desired is not None:
                self._seen = desired
                self._publish(desired)

    def bring(self) -> bool:
        """Try to bring each bundle that was found missing; whether none waits for storage now.

        After each there is another look: a document that is newer by now says what comes next.
        """
        self._check_one()
        tried: set[str] = set()
        while not self._is_stopped.is_set():
            missing = [digest for digest in self._missing() if digest not in tried]
            if not missing:
                break
            self._bring(missing[0])
            tried.add(missing[0])
            try:
                self.refresh()
            except (KonveyerError, OSError):
                self._publish_seen()
                raise
        self._forget_others()
        troubles = [self._troubles.get(digest) for digest in self._absent_digests()]
        return not any(trouble is None or trouble.is_away for trouble in troubles)

    def stop(self) -> None:
        """Let `bring` return after the bundle that it is at."""
        self._is_stopped.set()

    def _publish_seen(self) -> None:
        """What was brought is served, though storage is away meanwhile."""
        with self._publishing():
            if self._seen is not None:
                self._publish(self._seen)

    def _publishing(self) -> AbstractContextManager[None]:
        """For what is here and what is said of it: by one thread of one node at a time."""
        return locked(self._cache.path_of(".mirror"))

    def _bringing(self) -> AbstractContextManager[None]:
        """For the folder of bundles: none is removed while one is brought."""
        return locked(self._cache.path_of(".bringing"))

    def _desired(self) -> Desired | None:
        try:
            content = self._shared.read(desired_name(self._environment))
            desired = msgspec.json.decode(content, type=Desired)
        except ObjectMissing:
            if not self._cache.has(desired_name(self._environment)):
                return Desired(environment=self._environment)
            _log.error("the document of %s is gone from shared storage", self._environment)
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("the document of %s cannot be read: %s", self._environment, error)
            return None
        return desired

    def _check_one(self) -> None:
        """Read the bundle here that was not read for longest: a disk may have damaged it since."""
        began_s = time.monotonic()
        if began_s < self._check_at_s or not self._here:
            return
        digest = min(self._here, key=lambda one: self._checked_s.get(one, 0.0))
        self._bring(digest)
        self._checked_s = {one: self._checked_s.get(one, 0.0) for one in self._here}
        self._checked_s[digest] = now_s = time.monotonic()
        self._check_at_s = now_s + max(self._check_every_s, _CHECK_REST * (now_s - began_s))

    def _absent_digests(self) -> list[str]:
        desired = dict.fromkeys(() if self._seen is None else _digests(self._seen))
        return [digest for digest in desired if digest not in self._here]

    def _missing(self) -> list[str]:
        """Those that are absent and due."""
        now = time.monotonic()
        return [
            digest
            for digest in self._absent_digests()
            if digest not in self._troubles or self._troubles[digest].again_at_s <= now
        ]

    def _bring(self, digest: str) -> None:
        """A bundle that is read again stays published meanwhile, as it may well be whole."""
        found = self._why_not_here(digest)
        with self._publishing():
            if found is None:
                self._troubles.pop(digest, None)
                self._here.add(digest)
            else:
                self._here.discard(digest)
                self._troubles[digest] = self._troubled(digest, *found)

    def _troubled(self, digest: str, reason: str, is_away: bool) -> _Trouble:
        _log.error("bundle %s is not here: %s", short(digest), reason)
        tries = self._troubles[digest].tries + 1 if digest in self._troubles else 1
        pause_s = doubled(_FIRST_PAUSE_S, tries, _LONGEST_PAUSE_S)
        return _Trouble(reason, is_away, tries, time.monotonic() + pause_s)

    def _why_not_here(self, digest: str) -> tuple[str, bool] | None:
        """The reason, and whether it is that storage is away."""
        try:
            with self._bringing():
                self._bundles.open(digest)
        except (KonveyerError, OSError) as error:
            return str(error), isinstance(error, StorageUnavailable)
        except Exception as error:  # noqa: BLE001 - one bundle must not keep others away
            _log.exception("bundle %s cannot be opened", short(digest))
            return f"{type(error).__name__}: {error}", False
        return None

    def _publish(self, desired: Desired) -> None:
        """Write the document of the cache and what is absent from it, where they changed."""
        before = self._unless_damaged(read_desired)
        known = () if before is None else before.versions
        served = () if before is None else _digests(before)
        # What was served until now is kept too: a rollback asks for it.
        self._wanted_at_s |= dict.fromkeys({*served, *_digests(desired)}, time.monotonic())
        earlier = {(one.application, one.api_version): one for one in known}
        versions, absent = [], []
        for one in desired.versions:
            got, lacking = self._present(one, earlier.get((one.application, one.api_version)))
            versions += got
            absent += lacking
        after = msgspec.structs.replace(desired, versions=tuple(versions))
        if after != before or not self._cache.has(desired_name(self._environment)):
            write_desired(self._cache, after)
        if tuple(absent) != self._unless_damaged(read_absent):
            write_absent(self._cache, self._environment, tuple(absent))

    def _unless_damaged(self, read: Callable[[Storage, str], T]) -> T | None:
        """A document of the cache; None of one that a broken disk damaged: it is written again."""
        try:
            return read(self._cache, self._environment)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.error("a document of %s in the cache is damaged: %s", self._environment, error)
            return None

    def _present(
        self, wanted: DesiredVersion, earlier: DesiredVersion | None
    ) -> tuple[list[DesiredVersion], list[Refused]]:
        """What of a version can be served from the disk, and what is said of the rest."""
        there = self._here | ({*_digests_of(earlier)} if earlier is not None else set())
        absent = [
            Refused(
                application=wanted.application,
                api_version=wanted.api_version,
                digest=digest,
                reason=_BEING_BROUGHT if trouble is None else trouble.reason,
                is_preparing=trouble is None or trouble.is_away,
                since_us=wanted.since_us,
            )
            for digest in _digests_of(wanted)
            if (trouble := self._troubles.get(digest)) is not None or digest not in there
        ]
        if wanted.digest not in self._here:
            return [] if earlier is None else [earlier], absent
        canary = wanted.canary
        here = msgspec.structs.replace(
            wanted,
            canary=canary if canary is not None and canary.digest in self._here else None,
            shadows=tuple(one for one in wanted.shadows if one.digest in self._here),
        )
        return [here], absent

    def _forget_others(self) -> None:
        with self._bringing(), self._publishing():
            if self._seen is not None:
                self._keep(self._seen)

    def _keep(self, desired: Desired) -> None:
        """Remove what is not desired for so long; nothing is published or brought meanwhile."""
        now = time.monotonic()
        local = read_desired(self._cache, self._environment)
        wanted = {*_digests(desired), *_digests(local)}
        self._wanted_at_s |= dict.fromkeys(wanted, now)
        self._wanted_at_s |= {
            digest: now for digest in self._bundles.held() if digest not in self._wanted_at_s
        }
        kept = {one for one, at_s in self._wanted_at_s.items() if now - at_s <= self._keep_s}
        if len(kept) < len(self._wanted_at_s):
            self._bundles.keep_only(kept)
            self._here &= kept
            self._troubles = {one: why for one, why in self._troubles.items() if one in wanted}
            self._wanted_at_s = {one: self._wanted_at_s[one] for one in kept}


def _digests(desired: Desired) -> Iterable[str]:
    return (digest for version in desired.versions for digest in _digests_of(version))


def _digests_of(version: DesiredVersion) -> Iterable[str]:
    beside = (() if version.canary is None else (version.canary,)) + version.shadows
    return (version.digest, *(share.digest for share in beside))
