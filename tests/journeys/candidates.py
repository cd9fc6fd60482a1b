"""Candidates for production that stand in some stage, with policies and models of their own."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.bundle.manifest import COMPILED, MANIFEST
from konveyer.core.settings import load_settings
from konveyer.development.package import pack_run
from konveyer.development.training import find_run
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import release_row
from konveyer.execution.releases.required import required_stages
from konveyer.execution.releases.service import open_release
from konveyer.wiring import open_workspace

PROJECT, PATH = "models/coupon_response", "/coupon-response/v1/predict"
ANA = Actor("ana", frozenset({Role.DATA_SCIENTIST}))


@dataclass(frozen=True)
class Candidate:
    release: str
    digest: str


def opened_at(
    root: Path,
    state: State,
    *,
    policy: str = "",
    leaf: Callable[[float], float] = lambda value: value,
    knows_nobody: bool = False,
) -> Candidate:
    """A release of the newest run that stands in `state`, as if all before had passed.

    The gates before are the business of other tests, and take a minute. `policy` is added to the
    run's model.toml; `leaf` changes the values of the model's leaves. One that `knows_nobody` reads
    where there are no features.
    """
    workspace = open_workspace(load_settings(root))
    run, folder = find_run(workspace.workshop.runs, "coupon-response", None)
    toml = folder / "code" / "model.toml"
    toml.write_text(f"{toml.read_text()}\n{policy}")
    shop = workspace.workshop
    packed = pack_run(run, folder, "ana", workspace.bundles, shop.environments)
    manifest = packed.manifest
    if knows_nobody:
        views = tuple(replace(view, space="nowhere") for view in manifest.service.views)
        manifest = replace(manifest, service=replace(manifest.service, views=views))
    bundle = workspace.bundles.pack(manifest, lambda draft: _altered(packed.path, draft, leaf))
    required = required_stages(bundle.manifest, workspace.settings.releases)
    with workspace.catalog.transaction() as session:
        release = open_release(session, ANA, bundle, required=required)
        release_row(session, release).state = str(state)
    workspace.close()
    return Candidate(release, bundle.digest)


def _altered(packed: Path, draft: Path, leaf: Callable[[float], float]) -> None:
    shutil.copytree(packed, draft, dirs_exist_ok=True)
    (draft / MANIFEST).unlink()
    (model,) = (draft / COMPILED).rglob("*.txt")
    text = re.sub(r"(?m)^leaf_value=(.*)$", lambda m: _leaves(m[1], leaf), model.read_text())
    model.write_text(re.sub(r"(?m)^tree_sizes=.*\n", "", text))


def _leaves(values: str, leaf: Callable[[float], float]) -> str:
    return "leaf_value=" + " ".join(str(leaf(float(value))) for value in values.split())
