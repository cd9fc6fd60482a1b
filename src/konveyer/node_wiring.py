"""A serving node put together from settings: its places, its parent, its processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from konveyer.bundle.store import BundleStore
from konveyer.core.plugins import scheme_of
from konveyer.core.settings import Settings
from konveyer.core.storage import FolderStorage, Storage
from konveyer.wiring import open_bundle_store, open_online_store, open_storage


@dataclass(frozen=True)
class NodePlaces:
    """Where a node reads what it should serve, and writes what it served.

    Shared folders are used where they stand; of other storage the node keeps a copy of its own,
    which is up to date within `following()`.
    """

    settings: Settings
    environment: str

    @property
    def is_apart(self) -> bool:
        urls = (self.settings.storage.url, self.settings.bundles.url)
        return any(scheme_of(url) != "file" for url in urls)

    @property
    def local(self) -> FolderStorage:
        return FolderStorage(self.root)

    @property
    def root(self) -> Path:
        if self.is_apart:
            return self.settings.state / "cache" / self.environment
        return self.settings.path(self.settings.storage.url)

    @property
    def bundles(self) -> BundleStore:
        """Those on the disk of the node: nothing is fetched on the way of a request."""
        if scheme_of(self.settings.bundles.url) == "file":
            return open_bundle_store(self.settings)
        return BundleStore(self.root / "bundles")

    @contextmanager
    def around(self, shared: Storage, sockets: Path) -> Iterator[None]:
        """What a node needs around it: `following()`, and the processes of isolated models."""
        from konveyer.execution.serving.families import families_following

        families = families_following(
            self.environment,
            storage=self.local,
            bundles=self.bundles,
            environments=self.settings.state / "venvs",
            folder=sockets,
            secrets=self.settings.secrets,
        )
        with self.following(shared), families:
            yield

    def following(self, shared: Storage) -> AbstractContextManager[None]:
        if not self.is_apart:
            return nullcontext()
        from konveyer.execution.serving.attached import attached
        from konveyer.execution.serving.mirror import Mirror
        from konveyer.execution.serving.segments import log_folder
        from konveyer.execution.serving.shipping import Shipper

        mirror = Mirror(
            self.environment,
            shared=shared,
            cache=self.local,
            bundles=open_bundle_store(self.settings, self.root / "bundles"),
        )
        folder = log_folder(self.root, self.environment)
        return attached(mirror, Shipper(folder, shared, self.environment))


def serve_node(
    settings: Settings,
    environment: str,
    *,
    host: str | None,
    port: int | None,
    processes: int | None = None,
    url: str | None = None,
    parent: int | None = None,
) -> None:
    """Run a serving node until it is told to stop. Opens no database.

    `url` is where others reach it, when that is not where it listens.
    """
    from konveyer.execution.serving.node import run_node

    own = settings.environment(environment)
    places = NodePlaces(settings, environment)
    storage = open_storage(settings)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workspace = [sys.executable, "-m", "konveyer", "--workspace", str(settings.root)]

    def command(number: int, listener: int, control: int, folder: Path) -> list[str]:
        where = ["--listener", str(listener), "--control", str(control), "--folder", str(folder)]
        where += ["--sockets", sockets]
        return [*workspace, "node-process", environment, "--number", str(number), *where]

    # The path of a Unix socket is short, so these have a folder of their own.
    with TemporaryDirectory(prefix="konveyer-", ignore_cleanup_errors=True) as sockets:
        run_node(
            environment,
            storage=storage,
            following=lambda: places.around(storage, Path(sockets)),
            logs=places.root,
            run=settings.state / "run",
            host=host or own.host,
            port=own.port if port is None else port,
            processes=processes or own.processes or cores or 1,
            command=command,
            advertised=url,
            parent=parent,
        )


def serve_process(
    settings: Settings,
    environment: str,
    *,
    number: int,
    listener: int,
    control: int,
    folder: Path,
    sockets: Path,
) -> None:
    """Be one process of a node; the parent gives the descriptors of its sockets.

    Those of isolated models are in the folder `sockets`.
    """
    import socket

    from konveyer.execution.serving.node_process import run_process
    from konveyer.execution.serving.prediction_log import SEGMENT_S, PredictionLog
    from konveyer.execution.serving.rates import SharedRates
    from konveyer.execution.serving.router import Router
    from konveyer.execution.serving.segments import log_folder
    from konveyer.execution.serving.server import Limits
    from konveyer.execution.serving.siblings import rates_file

    own = settings.environment(environment)
    places = NodePlaces(settings, environment)
    online = open_online_store(settings, settings.online_url(environment))
    router = Router(
        environment,
        storage=places.local,
        bundles=places.bundles,
        online=online,
        clock=settings.clock,
        rates=SharedRates(rates_file(folder)),
        keys_are_required=own.keys == "required",
        waits_for_document=places.is_apart,
        families=sockets,
        most_waiting=own.most_under_way,
    )
    # What is shipped elsewhere is to be read there soon.
    segment_s = 1.0 if places.is_apart else SEGMENT_S
    try:
        run_process(
            router,
            log=PredictionLog(log_folder(places.root, environment), segment_s=segment_s),
            folder=folder,
            number=number,
            listener=socket.socket(fileno=listener),
            control=socket.socket(fileno=control),
            limits=Limits(most_under_way=own.most_under_way),
        )
    finally:
        online.close()
