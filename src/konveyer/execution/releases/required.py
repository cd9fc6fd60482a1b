"""Which optional stages a release goes through."""

from konveyer.bundle.manifest import Manifest
from konveyer.core.settings import ReleasesSettings
from konveyer.execution.releases.machine import OPTIONAL, State


def required_stages(manifest: Manifest, policy: ReleasesSettings) -> tuple[State, ...]:
    """What the model asks for, and what the workspace requires of every release."""
    asked = {
        State.REPLAY: manifest.release.replay is not None or "replay" in policy.require,
        State.SHADOW: manifest.release.shadow is not None or "shadow" in policy.require,
        State.APPROVAL: policy.approval,
        State.CANARY: manifest.release.canary is not None or "canary" in policy.require,
    }
    return tuple(stage for stage in OPTIONAL if asked[stage])
