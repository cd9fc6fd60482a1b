"""What gates work with."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from konveyer.bundle.manifest import Manifest
from konveyer.bundle.store import Bundle, Bundles
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock
from konveyer.core.storage import Storage
from konveyer.execution.releases.environments import TEST
from konveyer.execution.releases.gate_key import gate_key
from konveyer.execution.releases.live import put_live
from konveyer.execution.releases.nodes import (
    ANSWER_WITHIN_S,
    NodeAccess,
    node_of,
    wait_until_serving,
)
from konveyer.execution.serving.errors import EntityNotFound
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.offline.delta import DeltaOfflineStore


@dataclass(frozen=True, slots=True, kw_only=True)
class GateServices:
    """Backends and settings, the same for every release. Nodes are met through `storage`.

    `node_command` gives the command that serves an environment in the foreground. Isolated models
    do not see the variables `secrets`.
    """

    catalog: Catalog
    bundles: Bundles
    clock: FeatureClock
    engine: Engine
    offline: DeltaOfflineStore
    storage: Storage
    state: Path
    environments: Path
    node_command: Callable[[str], Sequence[str]]
    load_seconds: float
    secrets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class GateContext:
    """One release and what its gates need."""

    services: GateServices
    release: str

    @contextmanager
    def on_test(self, bundle: Bundle) -> Iterator[NodeAccess]:
        """A node of the test environment that serves this bundle, and how to call it."""
        services, manifest = self.services, bundle.manifest
        key = gate_key(services.catalog, services.storage, services.state, TEST)
        put_live(
            services.catalog,
            services.storage,
            release=self.release,
            environment=TEST,
            manifest=manifest,
        )
        logs = services.state / "logs"
        with node_of(services.storage, TEST, services.node_command(TEST), logs) as url:
            node = NodeAccess(url, {"x-api-key": key}, _longest_s(manifest))
            wait_until_serving(node, manifest.application, manifest.api_version, bundle.digest)
            yield node


def _longest_s(manifest: Manifest) -> float:
    """How long an answer is waited for: the model and its online store may take as long."""
    own_ms = manifest.model.isolated.limit_ms + manifest.serving.deadline_ms
    return max(ANSWER_WITHIN_S, own_ms / 1000)


def predict_path(manifest: Manifest) -> str:
    return f"/{manifest.application}/v{manifest.api_version}/predict"


def is_unknown(answer: httpx.Response) -> bool:
    """Whether a node knows nothing of the entity that it was asked about."""
    return answer.status_code == EntityNotFound.status and (
        answer.json()["error"]["code"] == EntityNotFound.code
    )
