"""What a node serves right now: versions loaded from bundles, swapped whole."""

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from konveyer.bundle.manifest import Manifest
from konveyer.bundle.store import BundleStore
from konveyer.core.clock import FeatureClock, now_us
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.storage import Storage
from konveyer.execution.serving.contract import RequestContract
from konveyer.execution.serving.desired import (
    ApiKey,
    Desired,
    DesiredVersion,
    Share,
    is_told,
    read_absent,
    read_desired,
)
from konveyer.execution.serving.errors import (
    ApplicationNotFound,
    LaneNotReady,
    LanePreparing,
    ModelUnavailable,
    VersionNotFound,
    told_nothing,
)
from konveyer.execution.serving.keys import KeyRing
from konveyer.execution.serving.lanes import Lane, lane_of
from konveyer.execution.serving.metrics import Meter
from konveyer.execution.serving.prediction_log import CANARY, LIVE, SHADOW
from konveyer.execution.serving.rates import SharedRates, TooManyKeys
from konveyer.execution.serving.reading import FeatureReader
from konveyer.execution.serving.remote_reads import RemoteReads
from konveyer.execution.serving.report import Refused, Report, Serving
from konveyer.execution.serving.room import Portion, Room
from konveyer.execution.serving.sides import WHOLE, place_of
from konveyer.feature_store.online.base import OnlineStore

Route = tuple[str, int]
_RETRY_REFUSED_S, _RETRY_STARTING_S = 5.0, 0.25
_SETTLED_AFTER_US = 600_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Loaded:
    """A bundle ready to answer: its contract, its features' reader, its lane."""

    digest: str
    manifest: Manifest
    contract: RequestContract
    reader: FeatureReader
    lane: Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVersion:
    """A release that answers at a URL, and on which side. `per_mille` is its share of requests."""

    loaded: Loaded
    release: str
    since_us: int
    side: str
    per_mille: int
    meter: Meter

    @property
    def digest(self) -> str:
        return self.loaded.digest

    @property
    def manifest(self) -> Manifest:
        return self.loaded.manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """All that answers at one URL, and what sees copies of its requests."""

    desired: DesiredVersion
    live: LiveVersion
    canary: LiveVersion | None
    shadows: tuple[LiveVersion, ...]

    @property
    def sides(self) -> list[LiveVersion]:
        """All of them, the live one first."""
        return [self.live, *([] if self.canary is None else [self.canary]), *self.shadows]

    def side_of(self, row: object, request_id: str) -> LiveVersion:
        """Who answers: the canary for its share of the entities, each time the same ones.

        A request of several rows is answered whole, by the side of its first row; one without
        keys by the side of its id.
        """
        canary = self.canary
        if canary is None:
            return self.live
        keys = self.live.loaded.contract.keys_of(row) or (request_id,)
        return canary if place_of(canary.release, keys) < canary.per_mille else self.live


class Router:
    """Follows the environment's desired document. Reading is lock-free; `refresh` is not.

    A version that cannot be loaded is refused with its reason, and what answered before goes on;
    it is tried again every five seconds. What was live before stays loaded, for a rollback.

    `families` is the folder of the sockets of isolated models. One whose process has not started,
    or has ended since it was live, is refused too, and is asked for again four times a second.

    Of all requests that wait for models or for a store on a network, `most_waiting` is the limit,
    which no version can use up (`room.py`).

    A node that never could read its document says that it is starting.
    With `waits_for_document` an environment without one is not known to serve nothing: the report
    says that the node is starting until there is one.
    """

    def __init__(
        self,
        environment: str,
        *,
        storage: Storage,
        bundles: BundleStore,
        online: OnlineStore,
        clock: FeatureClock,
        rates: SharedRates,
        keys_are_required: bool = True,
        waits_for_document: bool = False,
        families: Path | None = None,
        models_within_s: float = 300.0,
        most_waiting: int = 512,
    ) -> None:
        self.environment = environment
        self._families, self._room = families, Room(most_waiting)
        self._storage, self._bundles, self._online, self._clock = storage, bundles, online, clock
        self._rates, self._keys_are_required = rates, keys_are_required
        self._remote = RemoteReads(online) if online.is_remote else None
        self._endpoints: MappingProxyType[Route, Endpoint] = MappingProxyType({})
        self._unserved: Mapping[Route, Refused] = MappingProxyType({})
        self._loaded: dict[str, Loaded] = {}
        self._before: dict[Route, str] = {}
        self._desired: Desired | None = None
        self._refused: dict[Refused, None] = {}
        self._absent: tuple[Refused, ...] = ()
        self._is_told = not waits_for_document
        self._lacks_models = True
        self._waits_until_s = time.monotonic() + models_within_s
        self._retry_s = self._retry_keys_s = 0.0
        self._taken_up: tuple[ApiKey, ...] | None = None
        self._reported = Report()
        self._lock = threading.Lock()
        self.keys = KeyRing((), rates, are_required=keys_are_required, are_told=False)

    def find(self, application: str, api_version: int) -> Endpoint:
        endpoints = self._endpoints
        found = endpoints.get((application, api_version))
        if found is not None:
            return found
        refused = self._unserved.get((application, api_version))
        if refused is not None:
            raise ModelUnavailable(
                f"'{application}' v{api_version} cannot be served yet: {refused.reason}",
                hint="it is tried again; send the request again in a second",
            )
        if self._desired is None:
            raise told_nothing()
        versions = sorted(version for name, version in endpoints if name == application)
        if versions:
            known = ", ".join(f"v{version}" for version in versions)
            raise VersionNotFound(
                f"Application '{application}' has no version v{api_version} here.",
                hint=f"it has {known}",
            )
        names = {name for name, _ in endpoints}
        raise ApplicationNotFound(
            f"Application '{application}' is not served here.",
            hint=did_you_mean(
                application, names, otherwise=f"served: {', '.join(sorted(names)) or 'none yet'}"
            ),
        )

    def latest(self, application: str) -> int:
        """The API version that is meant where none is named: the highest, also when it was refused.

        Other nodes may serve it, and callers would get answers of two models. While another one
        answers, a version counts only once it can, or has been wanted for longer than its release
        waits for nodes: what fails in its release takes no answers away. 1 when there is none.
        """
        versions = [version for name, version in self._endpoints if name == application]
        settled_us = now_us() - _SETTLED_AFTER_US
        versions += [
            version
            for (name, version), one in self._unserved.items()
            if name == application
            and (not versions or (one.since_us < settled_us and not one.is_preparing))
        ]
        return max(versions, default=1)

    @property
    def _is_starting(self) -> bool:
        """Whether callers should ask other nodes: this one does not have yet what it is to serve.

        Never again once false. Models are waited for during `models_within_s` only: one that cannot
        be served must not keep callers from all others.
        """
        is_waiting = self._lacks_models and time.monotonic() < self._waits_until_s
        return is_waiting or self._desired is None

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    @property
    def refused(self) -> dict[str, str]:
        """What could not be brought here or loaded, and why."""
        return {f"{one.application}/v{one.api_version}": one.reason for one in self.report.refused}

    @property
    def report(self) -> Report:
        """What is served and refused right now, for those who wait for it elsewhere."""
        serving = (
            Serving(application=name, api_version=version, digest=side.digest, side=side.side)
            for (name, version), endpoint in self._endpoints.items()
            for side in endpoint.sides
        )
        return Report(
            is_starting=self._is_starting,
            serving=tuple(serving),
            refused=(*self._absent, *self._refused),
        )

    def refresh(self) -> bool:
        """Load what is newly desired, drop what is not any more; whether the report changed."""
        with self._lock:
            self._is_told = self._is_told or is_told(self._storage, self.environment)
            if not self._is_told:
                return self._is_news()
            desired = read_desired(self._storage, self.environment, self._desired)
            absent = read_absent(self._storage, self.environment)
            self._take_up(desired.keys)
            is_due = bool(self._refused) and time.monotonic() >= self._retry_s
            if desired == self._desired and absent == self._absent and not is_due:
                return self._is_news()
            before = self._refused
            self._refused = {}
            self._retry_s = time.monotonic() + _RETRY_REFUSED_S
            endpoints: dict[Route, Endpoint] = {}
            for one in desired.versions:
                route = (one.application, one.api_version)
                endpoint = self._endpoint(one, self._endpoints.get(route))
                if endpoint is not None:
                    endpoints[route] = endpoint
            for refused in self._refused:
                if refused not in before:
                    _log.error("refused bundle %s: %s", refused.digest, refused.reason)
            self._remember(endpoints)
            self._endpoints = MappingProxyType(endpoints)
            self._desired, self._absent = desired, absent
            refusals = self.report.refused
            unserved = {(one.application, one.api_version): one for one in refusals}
            self._lacks_models = self._lacks_models and bool(unserved.keys() - endpoints.keys())
            # Swapped whole, like the endpoints: requests read it while a refresh is under way.
            self._unserved = MappingProxyType(unserved)
            return self._is_news()

    def _take_up(self, keys: tuple[ApiKey, ...]) -> None:
        """Make the ring of these keys; while they are too many, the one before stays.

        Versions are followed all the same, and the keys tried again: one may have been revoked.
        """
        if keys == self._taken_up or time.monotonic() < self._retry_keys_s:
            return
        try:
            self.keys = KeyRing(keys, self._rates, are_required=self._keys_are_required)
        except TooManyKeys as error:
            _log.error("the keys cannot be taken up, and those before them stay: %s", error)
            self._retry_keys_s = time.monotonic() + _RETRY_REFUSED_S
        else:
            self._taken_up = keys

    def _is_news(self) -> bool:
        before, self._reported = self._reported, self.report
        return self._reported != before

    def close(self) -> None:
        if self._remote is not None:
            self._remote.close()

    def _endpoint(self, one: DesiredVersion, before: Endpoint | None) -> Endpoint | None:
        own = Share(digest=one.digest, release=one.release, per_mille=WHOLE)
        live = self._version(one, own, LIVE)
        if live is None:
            return before
        canary = None if one.canary is None else self._version(one, one.canary, CANARY)
        shadows = [self._version(one, share, SHADOW) for share in one.shadows]
        return Endpoint(
            desired=one,
            live=live,
            canary=canary,
            shadows=tuple(shadow for shadow in shadows if shadow is not None),
        )

    def _version(self, one: DesiredVersion, share: Share, side: str) -> LiveVersion | None:
        """None when its bundle cannot be loaded, which is then noted."""
        try:
            loaded = self._loaded.get(share.digest) or self._load(share.digest)
            if not self._answers(share.digest):
                loaded.lane.check_ready()
        except Exception as error:  # noqa: BLE001 - one bundle must not keep others from being served
            is_known = isinstance(error, KonveyerError)
            refused = Refused(
                application=one.application,
                api_version=one.api_version,
                digest=share.digest,
                reason=str(error) if is_known else f"{type(error).__name__}: {error}",
                is_preparing=isinstance(error, LanePreparing),
                since_us=one.since_us,
            )
            self._refused[refused] = None
            if isinstance(error, LaneNotReady):
                self._retry_s = min(self._retry_s, time.monotonic() + _RETRY_STARTING_S)
            return None
        return LiveVersion(
            loaded=loaded,
            release=share.release,
            since_us=one.since_us,
            side=side,
            per_mille=share.per_mille,
            meter=Meter(one.application, one.api_version, side),
        )

    def _answers(self, digest: str) -> bool:
        sides = (side for endpoint in self._endpoints.values() for side in endpoint.sides)
        return any(side.digest == digest for side in sides)

    def _load(self, digest: str) -> Loaded:
        bundle = self._bundles.open(digest)
        manifest = bundle.manifest
        service, serving = manifest.service, manifest.serving
        portion = Portion(self._room)
        loaded = Loaded(
            digest=digest,
            manifest=manifest,
            contract=RequestContract(service, serving.given),
            reader=FeatureReader(
                service, serving, self._online, self._remote, self._clock, portion
            ),
            lane=lane_of(bundle, self._families, portion),
        )
        # The last request that uses it may still be under way when it is forgotten here.
        weakref.finalize(loaded, loaded.lane.close)
        self._loaded[digest] = loaded
        return loaded

    def _remember(self, endpoints: dict[Route, Endpoint]) -> None:
        """Keep what answers, and for each URL what was live before."""
        for route, endpoint in endpoints.items():
            was = self._endpoints.get(route)
            if was is not None and was.live.digest != endpoint.live.digest:
                self._before[route] = was.live.digest
        self._before = {route: old for route, old in self._before.items() if route in endpoints}
        used = {*self._before.values()}
        for endpoint in endpoints.values():
            used |= {side.digest for side in endpoint.sides}
        self._loaded = {digest: one for digest, one in self._loaded.items() if digest in used}
