"""What a node serves right now: versions loaded from bundles, swapped whole."""

import logging
import threading
from dataclasses import dataclass
from types import MappingProxyType

from konveyer.bundle.manifest import Manifest
from konveyer.bundle.store import BundleStore
from konveyer.core.clock import FeatureClock
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.storage import Storage
from konveyer.execution.serving.desired import DesiredVersion, read_absent, read_desired
from konveyer.execution.serving.errors import ApplicationNotFound, VersionNotFound
from konveyer.execution.serving.lanes import Lane, lane_of
from konveyer.execution.serving.report import Refused, Report, Serving
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.online.base import OnlineStore

Route = tuple[str, int]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVersion:
    """A bundle ready to answer: its contract, its features' reader, its lane."""

    desired: DesiredVersion
    manifest: Manifest
    lookup: OnlineLookup
    lane: Lane


class Router:
    """Follows the environment's desired document. Reading is lock-free; `refresh` is not.

    A version that cannot be loaded is refused with its reason, and the one before keeps serving.
    """

    def __init__(
        self,
        environment: str,
        *,
        storage: Storage,
        bundles: BundleStore,
        online: OnlineStore,
        clock: FeatureClock,
    ) -> None:
        self.environment = environment
        self._storage, self._bundles, self._online, self._clock = storage, bundles, online, clock
        self._live: MappingProxyType[Route, LiveVersion] = MappingProxyType({})
        self._refused: dict[Route, tuple[DesiredVersion, KonveyerError]] = {}
        self._absent: tuple[Refused, ...] = ()
        self._lock = threading.Lock()

    def find(self, application: str, api_version: int) -> LiveVersion:
        live = self._live
        found = live.get((application, api_version))
        if found is not None:
            return found
        versions = sorted(version for name, version in live if name == application)
        if versions:
            known = ", ".join(f"v{version}" for version in versions)
            raise VersionNotFound(
                f"Application '{application}' has no version v{api_version} here.",
                hint=f"it has {known}",
            )
        names = {name for name, _ in live}
        raise ApplicationNotFound(
            f"Application '{application}' is not served here.",
            hint=did_you_mean(
                application, names, otherwise=f"served: {', '.join(sorted(names)) or 'none yet'}"
            ),
        )

    @property
    def live(self) -> list[LiveVersion]:
        return list(self._live.values())

    @property
    def refused(self) -> dict[str, str]:
        """What could not be brought here or loaded, and why."""
        return {f"{one.application}/v{one.api_version}": one.reason for one in self.report.refused}

    @property
    def report(self) -> Report:
        """What is served and refused right now, for those who wait for it elsewhere."""
        serving = (
            Serving(application=name, api_version=version, digest=live.desired.digest)
            for (name, version), live in self._live.items()
        )
        refused = (
            Refused(application=name, api_version=version, digest=one.digest, reason=str(error))
            for (name, version), (one, error) in self._refused.items()
        )
        return Report(serving=tuple(serving), refused=(*self._absent, *refused))

    def refresh(self) -> bool:
        """Load what is newly desired, drop what is not any more; whether anything changed."""
        with self._lock:
            desired = read_desired(self._storage, self.environment).versions
            routes = {(one.application, one.api_version): one for one in desired}
            live = {route: one for route, one in self._live.items() if route in routes}
            refused = {}
            for route, one in routes.items():
                if route in live and live[route].desired.digest == one.digest:
                    continue
                if route in self._refused and self._refused[route][0] == one:
                    refused[route] = self._refused[route]
                    continue
                try:
                    live[route] = self._load(one)
                except KonveyerError as error:
                    _log.error("refused bundle %s: %s", one.digest, error)
                    refused[route] = (one, error)
            absent = read_absent(self._storage, self.environment)
            changed = live != dict(self._live) or absent != self._absent
            changed = changed or refused != self._refused
            self._refused, self._absent = refused, absent
            self._live = MappingProxyType(live)
            return changed

    def _load(self, desired: DesiredVersion) -> LiveVersion:
        bundle = self._bundles.open(desired.digest)
        manifest = bundle.manifest
        return LiveVersion(
            desired=desired,
            manifest=manifest,
            lookup=OnlineLookup(manifest.service, self._online, self._clock),
            lane=lane_of(bundle),
        )
