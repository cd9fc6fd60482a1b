"""`konveyer submit` and `konveyer release`: a trained model on its way to production."""

import time
from pathlib import Path

import click

from konveyer.cli.context import LIMIT, Context, pass_context
from konveyer.cli.release_acts import ACTS
from konveyer.cli.release_diff import diff
from konveyer.cli.release_lead_time import lead_time
from konveyer.cli.release_view import (
    STOPPED,
    advance,
    ended_lines,
    loaded,
    print_release,
    show_release,
)
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when

_LOOK_EVERY_S = 0.3
_project = click.argument("project", type=click.Path(path_type=Path, file_okay=False))
_run = click.option("--run", "run_id", help="The training run (default: the newest of PROJECT).")
_dry_run = click.option(
    "--dry-run", is_flag=True, help="Show what would be released and do nothing."
)


@click.command()
@_project
@_run
@_dry_run
@pass_context
def submit(context: Context, project: Path, run_id: str | None, dry_run: bool) -> None:
    """Pack the trained model PROJECT into a bundle and open a release.

    The checks gate runs at once; then a second person reviews.

    \b
    Example: konveyer submit models/coupon_response
    """
    from konveyer.execution.releases.submission import plan_submission
    from konveyer.execution.releases.submission import submit as submit_run

    workspace = context.workspace
    workspace.refuse_if_busy()
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    planned = plan_submission(
        workspace.catalog,
        workspace.workshop,
        actor,
        _application(context, project),
        run_id,
        workspace.workshop.named(context.found(project)),
    )
    run, version = planned.run, planned.api_version
    if not context.as_json:
        _tell_changed(project, _changed(context, project, planned.folder))
    if dry_run:
        answer = {"application": run.application, "run": run.run_id, "metrics": run.metrics}
        print_json(answer) if context.as_json else click.echo(
            f"Would release run {run.run_id} as {run.application}/v{version} ({run.summary})."
        )
        return
    release_id = submit_run(
        workspace.catalog,
        workspace.bundles,
        workspace.workshop,
        workspace.settings.releases,
        actor,
        planned,
    )
    if not context.as_json:
        click.echo(f"{release_id}: {run.application}/v{version}, running checks ...")
    advance(context, release_id)


def _application(context: Context, project: Path) -> str:
    from konveyer.development.project import load_project

    return load_project(context.found(project)).model.application


def _changed(context: Context, project: Path, run: Path) -> list[str]:
    """The sections of model.toml that the training run in the folder `run` has otherwise."""
    from konveyer.development.project import changed_sections, load_project
    from konveyer.development.training import CODE

    return changed_sections(load_project(run / CODE), load_project(context.found(project)))


def _tell_changed(project: Path, changed: list[str]) -> None:
    if changed:
        sections = ", ".join(f"[{name}]" for name in changed)
        click.echo(
            f"{sections} of {project}/model.toml changed since this run was trained, and it keeps "
            f"what it was trained with. To take that up: konveyer train {project}"
        )


@click.group()
def release() -> None:
    """See releases, decide about them, and take them on."""


for act in (diff, lead_time, *ACTS):
    release.add_command(act)


@release.command("list")
@click.option("--application", help="Only releases of this application.")
@click.option("--limit", type=LIMIT, default=50, show_default=True)
@pass_context
def list_(context: Context, application: str | None, limit: int) -> None:
    """Releases, newest first, with their lead time.

    \b
    Example: konveyer release list --application coupon-response --limit 200
    """
    from konveyer.execution.releases.lead_time import lead_time as lead_time_of
    from konveyer.execution.releases.records import count_releases, list_releases

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = list_releases(session, application=application, limit=limit)
        there_are = count_releases(session, application=application)
    if context.as_json:
        print_json(found)
        return
    rows = []
    for one in found:
        lead = lead_time_of(one)
        url = f"{one.application}/v{one.api_version}"
        waited, worked = seconds(lead.waited_s), seconds(lead.worked_s)
        rows.append((one.id, url, one.state, one.author, when(one.opened_us), waited, worked))
    columns = ("release", "url", "state", "author", "opened", "waited", "worked")
    print_table(columns, rows, empty="No releases yet. Open one: konveyer submit PROJECT")
    if len(found) < there_are:
        click.echo(f"{len(found)} of {there_are} shown: --limit {there_are} shows all.")


@release.command()
@click.argument("release_id", metavar="RELEASE")
@pass_context
def show(context: Context, release_id: str) -> None:
    """The stages of a release: rule, measured, limit, and how long each took.

    \b
    Example: konveyer --json release show rel-01a20f41cfdb3908c07b
    """
    show_release(context, release_id)


@release.command()
@click.argument("release_id", metavar="RELEASE")
@pass_context
def watch(context: Context, release_id: str) -> None:
    """Follow a release until it ends or waits for a person; exits with 1 when it stopped.

    Somebody else runs it: `konveyer up`, or the command that took it on.

    \b
    Example: konveyer release watch rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases.flow import goes_on

    told: list[str] = []
    while True:
        found = loaded(context, release_id)
        lines = [*ended_lines(found), *(f"… {s.stage}" for s in found.stages if not s.finished_us)]
        for line in lines:
            if line not in told and not context.as_json:
                click.echo(f"  {line}")
        told = [*told, *(line for line in lines if line not in told)]
        if not goes_on(found):
            break
        time.sleep(_LOOK_EVERY_S)
    print_json(found) if context.as_json else print_release(found)
    if found.state in STOPPED:
        click.get_current_context().exit(1)


@release.command("try")
@_project
@_run
@click.option("--dry-run", is_flag=True, help="Show what dev would serve and do nothing.")
@pass_context
def try_(context: Context, project: Path, run_id: str | None, dry_run: bool) -> None:
    """Serve the trained model PROJECT in the dev environment, without any review.

    It replaces what dev served of this version. Test and prod are reached by `konveyer submit`.
    Code and settings are those that it was trained with.

    \b
    Example: konveyer release try models/coupon_response
    """
    from konveyer.development.package import pack_run
    from konveyer.development.training import find_run
    from konveyer.execution.releases.environments import DEV
    from konveyer.execution.releases.live import try_out
    from konveyer.execution.releases.nodes import wait_until_all_serve

    workspace = context.workspace
    application = _application(context, project)
    shop = workspace.workshop
    run, folder = find_run(shop.runs, application, run_id, shop.named(context.found(project)))
    changed = _changed(context, project, folder)
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    if not context.as_json:
        _tell_changed(project, changed)
    if dry_run:
        would = {"application": application, "run": run.run_id, "environment": DEV}
        print_json(would) if context.as_json else click.echo(
            f"Would serve run {run.run_id} of {application} in {DEV}."
        )
        return
    bundle = pack_run(run, folder, actor.name, workspace.bundles, shop.environments)
    storage = workspace.storage
    try_out(workspace.catalog, storage, actor, bundle)
    version = bundle.manifest.api_version
    nodes = wait_until_all_serve(storage, DEV, application, version, bundle.digest)
    urls = [f"{node.url}/{run.application}/v{version}/predict" for node in nodes]
    if context.as_json:
        answer = {"bundle": bundle.digest, "run": run.run_id, "urls": urls, "changed": changed}
        print_json(answer)
        return
    click.echo(f"dev serves run {run.run_id} of {run.application}/v{version}.")
    click.echo(urls[0] if urls else "No node of dev is up: konveyer serve dev")
