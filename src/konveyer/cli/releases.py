"""`konveyer submit` and `konveyer release`: a trained model on its way to production."""

from pathlib import Path
from pprint import pformat
from textwrap import indent
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.progress import told_as_it_happens
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when

if TYPE_CHECKING:
    from konveyer.execution.releases.records import Release, StageRecord

_MARKS = {"passed": "✓", "failed": "✗", "running": "…"}


@click.command()
@click.argument("project", type=click.Path(path_type=Path, file_okay=False))
@click.option("--run", "run_id", help="The training run (default: the newest of this model).")
@click.option("--dry-run", is_flag=True, help="Show what would be released and do nothing.")
@pass_context
def submit(context: Context, project: Path, run_id: str | None, dry_run: bool) -> None:
    """Pack the trained model PROJECT into a bundle and open a release.

    The checks gate runs at once; then a second person reviews.

    \b
    Example: konveyer submit models/coupon_response
    """
    from konveyer.development.package import pack_run
    from konveyer.development.project import load_project
    from konveyer.development.training import find_run
    from konveyer.execution.releases.service import check_free, open_release

    workspace = context.workspace
    project_model = load_project(context.found(project)).model
    application = project_model.application
    workspace.refuse_if_busy()
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
        check_free(session, actor, application, project_model.api_version)
    run, folder = find_run(workspace.workshop.runs, application, run_id)
    if dry_run:
        answer = {"application": application, "run": run.run_id, "metrics": run.metrics}
        print_json(answer) if context.as_json else click.echo(
            f"Would release run {run.run_id} of {application} (AUC {run.metrics['auc']:.4f})."
        )
        return
    bundle = pack_run(run, folder, actor.name, workspace.bundles)
    with workspace.catalog.transaction() as session:
        release = open_release(session, actor, bundle)
    if not context.as_json:
        click.echo(f"{release}: {application}/v{bundle.manifest.api_version}, running checks ...")
    _advance(context, release, actor.name)


@click.group()
def release() -> None:
    """See releases, review them, and take them on."""


@release.command("list")
@click.option("--application", help="Only releases of this application.")
@pass_context
def list_(context: Context, application: str | None) -> None:
    """Releases, newest first, with their lead time.

    \b
    Example: konveyer release list --application coupon-response
    """
    from konveyer.execution.releases.lead_time import lead_time
    from konveyer.execution.releases.records import list_releases

    with context.workspace.catalog.reading() as session:
        context.actor(session)
        found = list_releases(session, application=application)
    if context.as_json:
        print_json(found)
        return
    rows = []
    for one in found:
        lead = lead_time(one)
        url = f"{one.application}/v{one.api_version}"
        opened = when(one.opened_us)
        rows.append(
            (
                one.id,
                url,
                one.state,
                one.author,
                opened,
                seconds(lead.waited_s),
                seconds(lead.worked_s),
            )
        )
    columns = ("release", "url", "state", "author", "opened", "waited", "worked")
    print_table(columns, rows, empty="No releases yet. Open one: konveyer submit PROJECT")


@release.command()
@click.argument("release_id", metavar="RELEASE")
@pass_context
def show(context: Context, release_id: str) -> None:
    """The stages of a release: rule, measured, limit, and how long each took.

    \b
    Example: konveyer --json release show rel-01a20f41cfdb3908c07b
    """
    _show(context, release_id)


@release.command()
@click.argument("release_id", metavar="RELEASE")
@click.option("--comment", default="", help="What the author should know.")
@pass_context
def approve(context: Context, release_id: str, comment: str) -> None:
    """Say yes as a second person; the remaining gates run at once, up to production.

    \b
    Example: konveyer --profile boris release approve rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases.service import approve as approve_release

    context.workspace.refuse_if_busy()
    with context.workspace.catalog.transaction() as session:
        actor = context.actor(session)
        approve_release(session, actor, release_id, comment=comment)
    if not context.as_json:
        click.echo(f"{release_id}: approved, running the gates ...")
    _advance(context, release_id, actor.name)


@release.command()
@click.argument("release_id", metavar="RELEASE")
@click.option("--reason", required=True, help="What is to be changed.")
@pass_context
def reject(context: Context, release_id: str, reason: str) -> None:
    """Say no as a second person.

    \b
    Example: konveyer release reject rel-01a20f41cfdb3908c07b --reason "uses a leaked column"
    """
    from konveyer.execution.releases.service import reject as reject_release

    with context.workspace.catalog.transaction() as session:
        reject_release(session, context.actor(session), release_id, reason=reason)
    _show(context, release_id)


@release.command("continue")
@click.argument("release_id", metavar="RELEASE")
@pass_context
def continue_(context: Context, release_id: str) -> None:
    """Take on a release whose run was interrupted; harmless when nothing is to be done.

    \b
    Example: konveyer release continue rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases.service import resume

    with context.workspace.catalog.reading() as session:
        actor = context.actor(session)
        resume(session, actor, release_id)
    _advance(context, release_id, actor.name)


def _advance(context: Context, release_id: str, person: str) -> None:
    """Run the automatic stages from where the release stands, then show it."""
    from konveyer.execution.releases.flow import run_from
    from konveyer.execution.releases.records import load_release

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        state = load_release(session, release_id).state
    run = run_from(state, release_id, person)

    def ended() -> list[str]:
        with workspace.catalog.reading() as session:
            stages = load_release(session, release_id).stages
        return [
            f"{_MARKS[stage.verdict]} {stage.stage}  {seconds(stage.worked_s)}"
            for stage in stages
            if stage.finished_us is not None
        ]

    if run is not None:
        with told_as_it_happens(ended, quiet=context.as_json):
            workspace.run(run, purpose="konveyer release")
    _show(context, release_id, must_pass=True)


def _show(context: Context, release_id: str, *, must_pass: bool = False) -> None:
    """Print a release; with `must_pass` a failed one makes the command exit with 1."""
    from konveyer.execution.releases.records import load_release

    with context.workspace.catalog.reading() as session:
        context.actor(session)
        found = load_release(session, release_id)
    if context.as_json:
        print_json(found)
    else:
        _print(found)
    if must_pass and found.state == "failed":
        click.get_current_context().exit(1)


def _print(found: "Release") -> None:
    click.secho(f"{found.id}  {found.application}/v{found.api_version}  {found.state}", bold=True)
    click.echo(f"author {found.author}, opened {when(found.opened_us)}, bundle {found.digest[:19]}")
    rows = [
        (
            _MARKS[stage.verdict],
            stage.stage,
            seconds(stage.waited_s),
            seconds(stage.worked_s),
            stage.measured,
            stage.limit,
        )
        for stage in found.stages
    ]
    columns = ("", "stage", "waited", "worked", "measured", "limit")
    print_table(columns, rows, empty="No stage has started.")
    for stage in found.stages:
        if stage.verdict == "failed":
            _print_evidence(stage)
    if found.reason:
        click.secho(f"Stopped: {found.reason}", fg="red")
    if found.state == "review":
        click.echo(f"Next, by a second person: konveyer release approve {found.id}")


def _print_evidence(stage: "StageRecord") -> None:
    """What a failed gate saw."""
    for name, value in stage.evidence.items():
        text = value if isinstance(value, str) else pformat(value, width=100, compact=True)
        click.secho(f"{stage.stage}, {name}:", bold=True)
        click.echo(indent(text, "  "))
