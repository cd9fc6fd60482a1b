"""What `GET /{application}/v{n}` answers: the contract of an endpoint, for people and programs."""

from typing import Any

from konveyer.bundle.manifest import Manifest
from konveyer.core.clock import format_us
from konveyer.execution.serving.contract import RequestContract
from konveyer.execution.serving.desired import Share


def describe(
    manifest: Manifest, *, digest: str, release: str, since_us: int, canary: Share | None = None
) -> dict[str, Any]:
    """Inputs, outputs, types, an example, the owner, and since when which release answers."""
    contract = RequestContract(manifest.service, manifest.serving.given)
    inputs = (*contract.keys, *contract.fields)
    path = f"/{manifest.application}/v{manifest.api_version}"
    return {
        "application": manifest.application,
        "api_version": manifest.api_version,
        "description": manifest.description,
        "owner": manifest.owner,
        "bundle": digest,
        "release": release,
        "live_since": format_us(since_us),
        "live_since_us": since_us,
        "inputs": {column.name: column.dtype for column in inputs},
        "given": {column.name: str(column.dtype) for column in contract.given},
        "outputs": {column.name: column.dtype for column in manifest.model.outputs},
        "model": {"form": manifest.model.form, "reason": manifest.model.reason},
        "features": {column.name: str(column.dtype) for column in contract.features},
        "fallbacks": sorted(manifest.serving.fallbacks),
        "deadline_ms": manifest.serving.deadline_ms,
        "example": {"request": contract.example(), "url": f"{path}/predict"},
        "openapi": f"{path}/openapi.json",
        "objective": manifest.objective,
        "canary": canary,
    }
