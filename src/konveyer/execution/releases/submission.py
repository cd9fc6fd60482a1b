"""Submitting a training run: its bundle, and the release that takes it to production."""

from dataclasses import dataclass
from pathlib import Path

from konveyer.access.actor import Actor
from konveyer.bundle.store import BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.settings import ReleasesSettings
from konveyer.development.package import pack_run
from konveyer.development.project import load_project
from konveyer.development.training import CODE, TrainingRun, Workshop, find_run
from konveyer.execution.releases.required import required_stages
from konveyer.execution.releases.service import check_free, open_release


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What would be released: a kept run of an application, for one API version."""

    run: TrainingRun
    folder: Path
    api_version: int


def plan_submission(
    catalog: Catalog,
    workshop: Workshop,
    actor: Actor,
    application: str,
    run_id: str | None,
    project: str | None = None,
) -> Submission:
    """The run (when None the newest, of `project`); raises when the actor may not submit it."""
    run, folder = find_run(workshop.runs, application, run_id, project)
    api_version = load_project(folder / CODE).model.api_version
    with catalog.reading() as session:
        check_free(session, actor, application, api_version)
    return Submission(run=run, folder=folder, api_version=api_version)


def submit(
    catalog: Catalog,
    bundles: BundleStore,
    workshop: Workshop,
    policy: ReleasesSettings,
    actor: Actor,
    planned: Submission,
) -> str:
    """Pack the run and open its release; the stages are still to run."""
    bundle = pack_run(planned.run, planned.folder, actor.name, bundles, workshop.environments)
    required = required_stages(bundle.manifest, policy)
    with catalog.transaction() as session:
        return open_release(session, actor, bundle, required=required)
