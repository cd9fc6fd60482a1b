"""Worker families: one process for each locked environment, which runs its isolated models.

Owned by one process of a node, which need not be the one that answers requests.
"""

import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from konveyer.bundle.manifest import ISOLATED, LOCK, NATIVE
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.digest import short
from konveyer.core.errors import KonveyerError
from konveyer.core.files import write_atomically
from konveyer.core.pauses import doubled
from konveyer.core.storage import Storage
from konveyer.development.environment import ensure_environment, native_command
from konveyer.execution.serving.desired import Desired, DesiredVersion, read_desired
from konveyer.execution.serving.errors import LaneNotReady
from konveyer.execution.serving.isolated import IsolatedLane, socket_of, why_of

FOLLOW_EVERY_S, STOP_WITHIN_S, START_WITHIN_S = 0.2, 5.0, 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_MODULE = "konveyer.bundle.native.family"
# A process is forked safely while it has one thread, and workers share the cores among them.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # The allocator in PyArrow, which pandas imports, otherwise starts one to give memory back.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_log = logging.getLogger(__name__)


class Families:
    """Keeps families running for the bundles that are wanted. One thread calls it.

    Environments are built under `environments`, by a thread of their own, so that a long build
    holds up no other family. Sockets are in `folder`, whose path must be short: that of a Unix
    socket may have no more than about a hundred characters. Models do not see the environment
    variables `secrets`, nor those of AWS.
    """

    def __init__(
        self, environments: Path, folder: Path, secrets: frozenset[str] = frozenset()
    ) -> None:
        self._environments, self.folder, self._secrets = environments, folder, secrets
        self._families: dict[str, _Family] = {}

    def reconcile(self, bundles: Iterable[Bundle]) -> None:
        """Start what is missing, stop what is not wanted; call it often, it waits for nothing."""
        wanted: dict[str, dict[str, Bundle]] = {}
        for bundle in bundles:
            # What was live before may have been removed from the disk meanwhile. It goes on while
            # it runs, and is not started again.
            if not bundle.path.is_dir() and not socket_of(self.folder, bundle.digest).exists():
                continue
            lock = bundle.manifest.files.get(LOCK, "")
            wanted.setdefault(lock, {})[bundle.digest] = bundle
        for lock in [*self._families]:
            if lock not in wanted:
                self._families.pop(lock).stop()
        for lock, models in wanted.items():
            try:
                self._want(lock, [*models.values()])
            except Exception:  # noqa: BLE001 - one family must not keep others away
                _log.exception("the isolated models of lock %s cannot be started", short(lock))

    def start(self, bundle: Bundle) -> None:
        """Only this one, when it is missing; call it often. Errors are the caller's."""
        self._want(bundle.manifest.files.get(LOCK, ""), [bundle])

    def _want(self, lock: str, models: Sequence[Bundle]) -> None:
        told = [_wanted(one, self.folder) for one in models]
        if lock not in self._families:
            _unsay(told)  # what an earlier family said of them
            path = models[0].path / LOCK
            self._families[lock] = _Family(path, self._environments, self._secrets)
        self._families[lock].want(told)

    def stop(self) -> None:
        for family in self._families.values():
            family.stop()
        self._families.clear()


def _wanted(bundle: Bundle, folder: Path) -> dict[str, Any]:
    limits = bundle.manifest.model.isolated
    return {
        "digest": bundle.digest,
        "bundle": str(bundle.path),
        "socket": str(socket_of(folder, bundle.digest)),
        "memory_mb": limits.memory_mb,
        "limit_s": limits.limit_ms / 1000,
    }


def _modules_of(models: list[dict[str, Any]]) -> list[str]:
    """What their libraries had imported when they were trained."""
    found: dict[str, None] = {}
    for one in models:
        # A bundle that a disk has damaged keeps no other away: its worker says what is wrong.
        with suppress(OSError, ValueError):
            content = json.loads((Path(one["bundle"]) / NATIVE / "native.json").read_text())
            found |= dict.fromkeys(content["modules"])
    return [*found]


class _Family:
    """One environment: its build, then its process, started again after it ended.

    Those who wait for its models learn from a file beside each socket what has gone wrong.
    """

    def __init__(
        self, lock: Path, environments: Path, secrets: frozenset[str] = frozenset()
    ) -> None:
        self._python: Path | None = None
        self._unbuilt = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._told: list[dict[str, Any]] | None = None
        self._failures, self._due, self._started = 0, 0.0, 0.0
        self._lock, self._secrets = lock, secrets
        self._builder = threading.Thread(target=self._build, args=(environments,), daemon=True)
        self._builder.start()

    def want(self, models: list[dict[str, Any]]) -> None:
        python = self._python
        if python is None:
            # All have the same one, and the bundle that had it first may be removed meanwhile.
            self._lock = Path(models[0]["bundle"]) / LOCK
            if self._unbuilt:
                _say(models, self._unbuilt)
            return
        if time.monotonic() < self._due:
            return
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process)
        if self._process is None:
            if time.monotonic() < self._due:
                return
            if self._unbuilt:
                self._unbuilt = ""
                _unsay(models)
            self._start(python)
        if models != self._told:
            self._tell(models)

    def stop(self) -> None:
        """The end of its input ends it; what does not end in time is killed."""
        process = self._process
        if process is None:
            return
        with suppress(OSError):
            _input(process).close()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _stop_listening(self._told or ())

    def _build(self, environments: Path) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._python is None:
            lock = self._lock
            try:
                self._python = ensure_environment(lock, environments)
            except (KonveyerError, OSError) as error:
                _log.exception("the environment of %s cannot be built", lock)
                self._unbuilt = f"its environment cannot be built: {error}"
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _start(self, python: Path) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not self._is_ours(name)},
            **_ONE_THREAD,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            native_command(python, _MODULE),
            stdin=subprocess.PIPE,
            env=environment,
            # Ctrl-C is for the node, which then stops its families in order.
            start_new_session=True,
        )
        self._told, self._started = None, time.monotonic()

    def _is_ours(self, variable: str) -> bool:
        is_known = "KONVEYER" in variable or variable.startswith(("PROMETHEUS", "AWS_"))
        return is_known or variable in self._secrets

    def _tell(self, models: list[dict[str, Any]]) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - it was started
        line = json.dumps({"modules": _modules_of(models), "models": models}) + "\n"
        try:
            _input(process).write(line.encode())
            _input(process).flush()
        except OSError:
            return
        self._told = models

    def _ended(self, process: "subprocess.Popen[bytes]") -> None:
        with suppress(OSError):
            _input(process).close()
        _log.error("a worker family ended with exit status %s", process.returncode)
        _stop_listening(self._told or ())
        lived_s = time.monotonic() - self._started
        self._failures = 1 if lived_s > _LONGEST_PAUSE_S else self._failures + 1
        pause_s = doubled(_FIRST_PAUSE_S, self._failures, _LONGEST_PAUSE_S)
        self._process, self._due = None, time.monotonic() + pause_s
        # Last: a full disk for temporary files must not keep it from its next start.
        _say(self._told or (), f"its family ended with exit status {process.returncode}")


def _stop_listening(models: Iterable[dict[str, Any]]) -> None:
    for model in models:
        Path(model["socket"]).unlink(missing_ok=True)


def _say(models: Iterable[dict[str, Any]], why: str) -> None:
    for model in models:
        path = why_of(Path(model["socket"]))
        if not path.exists() or path.read_text() != why:
            write_atomically(path, why.encode())


def _unsay(models: Iterable[dict[str, Any]]) -> None:
    for model in models:
        why_of(Path(model["socket"])).unlink(missing_ok=True)


def _input(process: "subprocess.Popen[bytes]") -> Any:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    return process.stdin


@contextmanager
def families_following(
    environment: str,
    *,
    storage: Storage,
    bundles: BundleStore,
    environments: Path,
    folder: Path,
    secrets: frozenset[str] = frozenset(),
) -> Iterator[None]:
    """Families for all that the environment's desired document names, in a thread of their own.

    Their sockets are in `folder`, for the routers of the node's processes.
    """
    families = Families(environments, folder, secrets)
    stopping = threading.Event()
    opened = _Opened(bundles)

    def follow() -> None:
        desired: Desired | None = None
        while True:
            try:
                desired = read_desired(storage, environment, desired)
                families.reconcile(opened.isolated(desired.versions))
            except Exception:  # noqa: BLE001 - logged, and the next look may find what can be read
                _log.exception("the isolated models cannot be started")
            if stopping.wait(FOLLOW_EVERY_S):
                return

    thread = threading.Thread(target=follow, name="families")
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        families.stop()


class _Opened:
    """Bundles that were opened, which means verified, once each.

    What was live before stays: requests to it may still be under way, and a rollback finds it.
    """

    def __init__(self, bundles: BundleStore) -> None:
        self._bundles = bundles
        self._opened: dict[str, Bundle | None] = {}
        self._live: dict[tuple[str, int], str] = {}
        self._before: dict[tuple[str, int], str] = {}

    def isolated(self, versions: Sequence[DesiredVersion]) -> list[Bundle]:
        live = {(one.application, one.api_version): one.digest for one in versions}
        was = {route: old for route, old in self._live.items() if live.get(route, old) != old}
        self._before = {route: old for route, old in self._before.items() if route in live} | was
        self._live = live
        digests = [digest for version in versions for digest in _digests(version)]
        digests += [digest for digest in self._before.values() if digest not in digests]
        for digest in digests:
            if digest not in self._opened:
                try:
                    self._opened[digest] = self._bundles.open(digest)
                except Exception:  # noqa: BLE001, S112 - the router refuses it, and says so
                    continue
        self._opened = {digest: one for digest, one in self._opened.items() if digest in digests}
        return [one for one in self._opened.values() if one and one.manifest.model.form == ISOLATED]


def _digests(version: DesiredVersion) -> list[str]:
    beside = [version.canary, *version.shadows]
    return [version.digest, *(share.digest for share in beside if share is not None)]


@contextmanager
def families_of(
    bundle: Bundle, environments: Path, secrets: frozenset[str] = frozenset()
) -> Iterator[Path | None]:
    """The process of one bundle's model, for as long as it is needed; none for a compiled one.

    Gives the folder of its socket once it answers; raises `ModelUnavailable` when it does not.
    """
    if bundle.manifest.model.form != ISOLATED:
        yield None
        return
    with TemporaryDirectory(prefix="konveyer-", ignore_cleanup_errors=True) as name:
        yield from _one_family(bundle, Families(environments, Path(name), secrets))


def _one_family(bundle: Bundle, families: Families) -> Iterator[Path]:
    lane = IsolatedLane(socket_of(families.folder, bundle.digest), bundle.manifest.model)
    deadline = time.monotonic() + START_WITHIN_S
    try:
        while True:
            families.start(bundle)
            try:
                lane.check_ready()
                break
            except LaneNotReady:
                if time.monotonic() > deadline:
                    raise
            time.sleep(FOLLOW_EVERY_S / 4)
        yield families.folder
    finally:
        families.stop()
