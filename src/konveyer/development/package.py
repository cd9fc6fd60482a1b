"""From a training run to a bundle: everything that review, gates and serving need."""

import shutil
from pathlib import Path

import msgspec

from konveyer.bundle import manifest as bundle
from konveyer.bundle.invariants import check_invariants
from konveyer.bundle.manifest import Manifest
from konveyer.bundle.readable import check_readable
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.core.clock import now_us
from konveyer.development.project import load_project
from konveyer.development.training import CODE, MODEL, TrainingRun
from konveyer.feature_store.datamart.manifest import TrainingSetManifest


def pack_run(run: TrainingRun, folder: Path, author: str, bundles: BundleStore) -> Bundle:
    """Pack the kept `run` in `folder`: the code and settings are those that it was trained with."""
    project = load_project(folder / CODE)
    training = msgspec.json.decode(
        (folder / bundle.TRAINING).read_bytes(), type=TrainingSetManifest
    )
    check_readable(training.service)
    manifest = Manifest(
        application=project.model.application,
        api_version=project.model.api_version,
        description=project.model.description,
        owner=project.model.owner,
        author=author,
        created_us=now_us(),
        run_id=run.run_id,
        service=training.service,
        categories=run.categories,
        objective=project.objective,
        release=project.release,
        invariants=project.invariants,
        batch=project.batch,
        parameters=run.parameters,
        metrics=run.metrics,
        files={},
    )

    check_invariants(manifest)

    def write(draft: Path) -> None:
        (draft / bundle.MODEL).parent.mkdir()
        shutil.copy(folder / MODEL, draft / bundle.MODEL)
        for name in (bundle.GOLDEN, bundle.ENTITIES, bundle.LOCK, bundle.TRAINING):
            shutil.copy(folder / name, draft / name)
        shutil.copytree(folder / CODE, draft / bundle.CODE)

    return bundles.pack(manifest, write)
