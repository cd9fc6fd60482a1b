"""The one place that turns settings into backends."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from konveyer.bundle.origin import BundleOrigin
from konveyer.bundle.store import BundleStore
from konveyer.core.errors import KonveyerError
from konveyer.core.plugins import backend_for, scheme_of
from konveyer.core.settings import Settings
from konveyer.core.storage import Storage
from konveyer.core.variables import filled, variables_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from konveyer.catalog.session import Catalog
    from konveyer.development.training import Workshop
    from konveyer.execution.batch.flow import BatchServices
    from konveyer.execution.releases.flow import ReleaseServices
    from konveyer.feature_store.engines.base import Engine
    from konveyer.feature_store.etl.flow import EtlServices
    from konveyer.feature_store.etl.pins import Pin
    from konveyer.feature_store.offline.delta import DeltaOfflineStore
    from konveyer.feature_store.online.base import OnlineStore
    from konveyer.feature_store.push.accept import Pusher
    from konveyer.feature_store.sources.kind import Places
    from konveyer.pipeline.flow import Flow, Json, Run
    from konveyer.pipeline.schedule import Due

ENGINES = {
    "duckdb": "konveyer.feature_store.engines.duckdb:DuckDBEngine",
    "spark": "konveyer.feature_store.engines.spark:SparkEngine",
}
OFFLINE_STORES = {"delta": "konveyer.feature_store.offline.delta:DeltaOfflineStore"}
ONLINE_STORES = {
    "lmdb": "konveyer.feature_store.online.lmdb:LmdbOnlineStore",
    "redis": "konveyer.feature_store.online.redis:RedisOnlineStore",
    "rediss": "konveyer.feature_store.online.redis:RedisOnlineStore",
}
STORAGES = {
    "file": "konveyer.core.storage:FolderStorage",
    "s3": "konveyer.core.s3:BucketStorage",
}

_LOOK_EVERY_S = 5.0


@dataclass
class Workspace:
    """The backends of one workspace, each opened on first use. Close it when done."""

    settings: Settings
    catalog: "Catalog"
    # A process that answers others runs nothing that may take hours.
    leaves_runs: bool = False

    @cached_property
    def engine(self) -> "Engine":
        url = self.settings.engine.url
        return cast("Engine", backend_for(url, ENGINES, setting="engine")(url))

    @cached_property
    def offline(self) -> "DeltaOfflineStore":
        url = self.settings.offline.url
        store = backend_for(url, OFFLINE_STORES, setting="offline")
        return cast("DeltaOfflineStore", store(self.settings.path(url)))

    @cached_property
    def online(self) -> "OnlineStore":
        """The workspace's, for reading."""
        return open_online_store(self.settings)

    @cached_property
    def published(self) -> "OnlineStore":
        """All that nodes of any environment read, for writing."""
        from konveyer.feature_store.online.several import SeveralOnlineStores

        (first, _), *others = self.settings.online_urls.items()
        if not others:
            return self.online
        stores = {name: open_online_store(self.settings, url) for name, url in others}
        return SeveralOnlineStores({first: self.online, **stores})

    @cached_property
    def bundles(self) -> BundleStore:
        return open_bundle_store(self.settings)

    @cached_property
    def storage(self) -> Storage:
        """What nodes and the rest of the workspace tell each other through."""
        return open_storage(self.settings)

    @property
    def training_sets(self) -> Path:
        return self.settings.root / "training_sets"

    @cached_property
    def workshop(self) -> "Workshop":
        from konveyer.development.tracking import Tracking
        from konveyer.development.training import Workshop

        tracking = self.settings.tracking
        artifacts = tracking.artifacts
        if "://" not in artifacts:
            artifacts = (self.settings.root / artifacts).as_uri()
        url = self.settings.database_url(tracking.url)
        state = self.settings.state
        return Workshop(
            root=self.settings.root,
            environments=state / "venvs",
            runs=state / "runs",
            tracking=Tracking(url=url, artifacts=artifacts),
        )

    @property
    def etl(self) -> "EtlServices":
        from konveyer.feature_store.etl.flow import EtlServices

        return EtlServices(
            catalog=self.catalog,
            engine=self.engine,
            offline=self.offline,
            online=self.published,
            root=self.settings.root,
            databases=self.database_urls,
            near=self.near_engine,
        )

    @cached_property
    def near_engine(self) -> "Engine":
        """An engine in this process, for what cannot wait for a cluster."""
        if scheme_of(self.settings.engine.url) == "duckdb":
            return self.engine
        return cast("Engine", backend_for("duckdb:", ENGINES, setting="engine")("duckdb:"))

    @cached_property
    def pusher(self) -> "Pusher":
        from konveyer.execution.releases.pins import HeldViews
        from konveyer.feature_store.push.accept import Pusher

        return Pusher(
            self.etl,
            self.settings.clock,
            held=HeldViews(self.bundles, self.settings.releases.kept_for_rollback),
        )

    @property
    def database_urls(self) -> dict[str, str]:
        """What sources name, by that name; secrets are not taken in yet."""
        return {name: database.url for name, database in self.settings.databases.items()}

    @property
    def places(self) -> "Places":
        """Where sources stand."""
        from konveyer.feature_store.sources.kind import Places
        from konveyer.feature_store.sources.pushes import listed_segments

        with self.catalog.reading() as session:
            segments = listed_segments(session)
        return Places(root=self.settings.root, databases=self.database_urls, segments=segments)

    @property
    def flows(self) -> "Sequence[Flow]":
        """Every durable flow of the product."""
        from konveyer.execution.batch.flow import batch_flow
        from konveyer.execution.releases.flow import release_flow
        from konveyer.feature_store.etl.flow import etl_flow

        return etl_flow(self.etl), release_flow(self.releases), batch_flow(self.batch)

    @property
    def scores(self) -> Path:
        """The folder of the tables of scores."""
        url = self.settings.scores.url
        backend_for(url, OFFLINE_STORES, setting="scores")
        return self.settings.path(url)

    @property
    def batch(self) -> "BatchServices":
        from konveyer.execution.batch.flow import BatchServices

        return BatchServices(
            catalog=self.catalog,
            bundles=self.bundles,
            engine=self.engine,
            offline=self.offline,
            scores=self.scores,
            staging=self.settings.state / "scoring",
            environments=self.settings.state / "venvs",
            secrets=self.settings.secrets,
        )

    @property
    def due(self) -> "Sequence[Due]":
        """What starts by itself while a worker serves, each for as long as it does.

        A fixed feature time never comes to another refresh: there is nothing to compute again.
        """
        from konveyer.execution.batch.schedule import DueBatches
        from konveyer.execution.releases.environments import PROD
        from konveyer.execution.releases.pins import HeldViews
        from konveyer.feature_store.etl.schedule import DueViews

        clock = self.settings.clock
        if not self.settings.etl.schedule or clock.fixed_us is not None:
            return ()
        return (
            DueViews(
                self.catalog,
                HeldViews(self.bundles, self.settings.releases.kept_for_rollback),
                clock.now_us,
            ),
            DueBatches(self.catalog, self.bundles, PROD, clock.now_us),
        )

    @property
    def releases(self) -> "ReleaseServices":
        from konveyer.execution.releases.flow import ReleaseServices
        from konveyer.execution.releases.gates.context import GateServices

        state = self.settings.state
        gates = GateServices(
            catalog=self.catalog,
            bundles=self.bundles,
            clock=self.settings.clock,
            engine=self.engine,
            offline=self.offline,
            storage=self.storage,
            state=state,
            environments=state / "venvs",
            node_command=self.node_command,
            load_seconds=self.settings.load_seconds,
            secrets=self.settings.secrets,
        )
        return ReleaseServices(catalog=self.catalog, gates=gates)

    def node_command(self, environment: str) -> list[str]:
        """The command that serves an environment on a free port, for as long as we live."""
        command = [sys.executable, "-m", "konveyer", "--workspace", str(self.settings.root)]
        return [*command, "serve", environment, "--port", "0", "--parent", str(os.getpid())]

    def release_pins(self, session: "Session") -> "Sequence[Pin]":
        """What releases that are live or on their way need of the feature store."""
        from konveyer.execution.releases.pins import release_pins

        return release_pins(session, self.bundles, self.settings.releases.kept_for_rollback)

    def pins(self, session: "Session") -> "Sequence[Pin]":
        """Everything that upkeep of offline tables must leave as it is."""
        from konveyer.feature_store.datamart.kept_sets import pins_of_training_sets

        return [*pins_of_training_sets(session), *self.release_pins(session)]

    @property
    def pipelines_url(self) -> str:
        return self.settings.database_url(self.settings.pipelines.url)

    def run(self, run: "Run", *, purpose: str) -> "Json":
        """Run a flow to its end: in the serving worker when there is one, otherwise here."""
        from konveyer.pipeline.run import run_flow

        return run_flow(
            self.catalog,
            self.pipelines_url,
            self.flows,
            run,
            lost=self.lost_runs,
            leaving=self.leave_steps,
            purpose=purpose,
            may_run_here=not self.leaves_runs,
        )

    def refuse_if_busy(self) -> None:
        """Raise now what `run` would raise: another command holds the workspace."""
        from konveyer.pipeline.run import refuse_if_busy

        refuse_if_busy(self.catalog, may_run_here=not self.leaves_runs)

    def refuse_if_held(self) -> None:
        """Raise when any process, a worker too, holds the workspace."""
        from konveyer.catalog.leases import refuse_if_held
        from konveyer.pipeline.run import LEASE

        with self.catalog.reading() as session:
            refuse_if_held(session, LEASE)

    def lost_runs(self) -> "Sequence[Run]":
        """Runs of releases that stand in an automatic stage and may never have begun."""
        from konveyer.execution.releases.flow import lost_runs

        with self.catalog.reading() as session:
            return lost_runs(session)

    def leave_steps(self) -> None:
        """To be called when the process ends in the middle of steps, because it was told to."""
        from sqlalchemy.exc import OperationalError

        from konveyer.feature_store.etl.runs import told_to_end

        with suppress(KonveyerError, OperationalError), self.catalog.transaction() as session:
            told_to_end(session)

    def close(self) -> None:
        """Close what was opened."""
        for name in ("engine", "near_engine", "published", "online"):
            if name in self.__dict__:
                getattr(self, name).close()
        self.catalog.close()


def open_workspace(settings: Settings) -> Workspace:
    """The workspace of `settings`; its catalog must be of this version."""
    from konveyer.catalog.session import Catalog

    catalog = Catalog(settings.database_url(settings.catalog.url))
    catalog.check_version()
    return Workspace(settings=settings, catalog=catalog)


def create_catalog(settings: Settings) -> "Catalog":
    """The catalog of a new workspace, or that of an old one brought to this version."""
    from konveyer.catalog.session import Catalog

    catalog = Catalog(settings.database_url(settings.catalog.url))
    catalog.migrate()
    return catalog


def open_online_store(settings: Settings, url: str | None = None) -> "OnlineStore":
    """The online store at `url`, or the workspace's."""
    url = url or settings.online.url
    url = filled(url, variables_of(url, os.environ, setting="online"))
    store = backend_for(url, ONLINE_STORES, setting="online")
    return cast("OnlineStore", store.from_url(url, settings.root))


def open_bundle_store(settings: Settings, cache: Path | None = None) -> BundleStore:
    """Bundles where they stand; those of other machines through a `cache` on this one."""
    url = settings.bundles.url
    storage = _storage_at(url, settings, setting="bundles")
    if scheme_of(url) == "file":
        return BundleStore(settings.path(url))
    return BundleStore(cache or settings.state / "bundles", BundleOrigin(storage))


def open_storage(settings: Settings) -> Storage:
    return _storage_at(settings.storage.url, settings, setting="storage")


def _storage_at(url: str, settings: Settings, *, setting: str) -> Storage:
    backend = backend_for(url, STORAGES, setting=setting)
    return cast("Storage", backend.from_url(url, settings.root))


def run_worker(workspace: Workspace) -> None:
    """Hold the workspace and run the flows that commands hand over, until SIGTERM or SIGINT.

    Ends the process. Runs under way go on with the next worker.
    """
    from sqlalchemy.exc import OperationalError

    from konveyer.catalog.leases import lease
    from konveyer.execution.serving.json_logs import log_json
    from konveyer.pipeline.run import LEASE, SERVING
    from konveyer.pipeline.worker import started_worker

    log_json()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    _keep_told(workspace)
    with (
        lease(workspace.catalog, LEASE, purpose=SERVING),
        started_worker(workspace.pipelines_url, workspace.flows) as worker,
    ):
        due = workspace.due
        while True:
            worker.start_due(due)
            if stopping.wait(_LOOK_EVERY_S):
                break
            try:
                _keep_told(workspace)
                lost = workspace.lost_runs()
            except OperationalError as error:  # runs under way wait for the catalog too
                logging.getLogger(__name__).warning("the catalog is away: %s", error.orig)
                continue
            worker.start(lost, unless_under_way=lambda run: run.payload["release"])
        # A step under way cannot be interrupted; ending at once is what a kill does, and the next
        # worker runs the step again.
        workspace.leave_steps()
        logging.shutdown()
        os._exit(0)


def _keep_told(workspace: Workspace) -> None:
    """See that nodes are told what the catalog says, also after storage was down."""
    from konveyer.execution.releases.live import repair_desired

    log = logging.getLogger(__name__)
    for environment in workspace.settings.environments:
        try:
            if repair_desired(workspace.catalog, workspace.storage, environment):
                log.info("told the nodes of %s what to serve", environment)
        except KonveyerError as error:
            log.error("the nodes of %s cannot be told: %s", environment, error)  # noqa: TRY400
