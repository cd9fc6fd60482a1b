"""From a training run to a bundle: everything that review, gates and serving need."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from konveyer.bundle import manifest as bundle
from konveyer.bundle.invariants import check_invariants
from konveyer.bundle.manifest import ISOLATED, Manifest, ModelSpec
from konveyer.bundle.readable import check_readable
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.bundle.values import checked_fallbacks
from konveyer.core.clock import now_us
from konveyer.development.compiling import compile_model
from konveyer.development.project import check_batch, load_project
from konveyer.development.training import CODE, TrainingRun
from konveyer.feature_store.datamart.manifest import TrainingSetManifest


def pack_run(
    run: TrainingRun, folder: Path, author: str, bundles: BundleStore, environments: Path
) -> Bundle:
    """Pack the kept `run` in `folder`: the code and settings are those that it was trained with.

    Its model is compiled in its own environment, of `environments`; when that cannot be, the
    native one is packed.
    """
    project = load_project(folder / CODE)
    training = msgspec.json.decode(
        (folder / bundle.TRAINING).read_bytes(), type=TrainingSetManifest
    )
    check_readable(training.service)
    check_batch(project, training.service)
    checked_fallbacks(training.service, project.serving)
    manifest = Manifest(
        application=project.model.application,
        api_version=project.model.api_version,
        description=project.model.description,
        owner=project.model.owner,
        author=author,
        trained_by=run.person,
        created_us=now_us(),
        run_id=run.run_id,
        service=training.service,
        categories=run.categories,
        objective=project.objective,
        release=project.release,
        invariants=project.invariants,
        batch=project.batch,
        serving=project.serving,
        parameters=run.parameters,
        metrics=run.metrics,
        files={},
        model=ModelSpec(outputs=run.outputs, isolated=project.isolated),
    )
    check_invariants(manifest)
    with TemporaryDirectory() as name:
        compiled = compile_model(folder, manifest, environments, Path(name))
        return bundles.pack(compiled, lambda draft: _write(folder, Path(name), compiled, draft))


def _write(folder: Path, made: Path, manifest: Manifest, draft: Path) -> None:
    """The files of the bundle: the native model only when nodes cannot run a compiled one."""
    if manifest.model.form == ISOLATED:
        shutil.copytree(folder / bundle.NATIVE, draft / bundle.NATIVE)
    else:
        shutil.copytree(made / bundle.COMPILED, draft / bundle.COMPILED)
    for name in (bundle.GOLDEN, bundle.ENTITIES, bundle.LOCK, bundle.TRAINING):
        shutil.copy(folder / name, draft / name)
    shutil.copytree(folder / CODE, draft / bundle.CODE)
