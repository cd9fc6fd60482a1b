"""Manifests of bundles, with what a test does not ask about filled in."""

from typing import Any

import msgspec

from konveyer.bundle.manifest import Manifest, Objective
from konveyer.feature_store.definitions.resolved import ResolvedService

_OF_A_TEST = Manifest(
    application="scoring",
    api_version=1,
    description="",
    owner="",
    author="ana",
    created_us=0,
    run_id="run",
    service=ResolvedService(name="s", version="v", views=(), features=()),
    categories={},
    objective=Objective(rate_per_s=1, p99_ms=1),
    parameters={},
    metrics={},
    files={},
)


def manifest_with(**changes: Any) -> Manifest:
    """A manifest of application `scoring` with these fields instead."""
    return msgspec.structs.replace(_OF_A_TEST, **changes)
