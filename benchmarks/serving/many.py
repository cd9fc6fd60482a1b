"""Bundles of many applications out of one, and what a node is told to serve.

Each is a bundle of its own with a model file of its own, loaded as if it were another model.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.serving.shop import FACTS
from konveyer.bundle.manifest import MANIFEST, NATIVE
from konveyer.core.clock import now_us
from konveyer.core.settings import load_settings
from konveyer.execution.serving.desired import (
    Desired,
    DesiredVersion,
    read_desired,
    write_desired,
)
from konveyer.wiring import open_bundle_store, open_storage

PROD, ISOLATED = "prod", "isolated"


def packed(root: Path, names: Sequence[str], *, native: Path | None = None) -> dict[str, str]:
    """The digest of a bundle for each application: that of the release under other names.

    With the folder `native` of the training run the model runs in a process of its own, as one does
    that cannot be compiled.
    """
    bundles = open_bundle_store(load_settings(root))
    first = bundles.open(json.loads((root / FACTS).read_text())["digest"])
    spec = first.manifest.model
    if native is not None:
        spec = msgspec.structs.replace(spec, form=ISOLATED, reason="asked for by a benchmark")

    def write(draft: Path) -> None:
        shutil.copytree(first.path, draft, dirs_exist_ok=True)
        (draft / MANIFEST).unlink()
        if native is not None:
            shutil.copytree(native, draft / NATIVE)

    return {
        name: bundles.pack(
            msgspec.structs.replace(first.manifest, application=name, model=spec), write
        ).digest
        for name in names
    }


def serve(root: Path, digests: Mapping[str, str]) -> None:
    """Let production serve these bundles and no others; keys stay as they are."""
    storage = open_storage(load_settings(root))
    versions = tuple(
        DesiredVersion(
            application=name, api_version=1, digest=digest, release=name, since_us=now_us()
        )
        for name, digest in digests.items()
    )
    keys = read_desired(storage, PROD).keys
    write_desired(storage, Desired(environment=PROD, versions=versions, keys=keys))
