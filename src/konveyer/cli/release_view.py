"""How a release looks in a terminal, and running it on from where it stands."""

from pprint import pformat
from textwrap import indent
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import Context
from konveyer.cli.progress import told_as_it_happens
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when

if TYPE_CHECKING:
    from konveyer.execution.releases.records import Release, StageRecord

MARKS = {"passed": "✓", "failed": "✗", "running": "…", "waived": "!", "not required": "-"}
_MOST_LINES = 20
STOPPED = ("failed", "rejected", "withdrawn", "rolled-back")


def loaded(context: Context, release_id: str) -> "Release":
    from konveyer.execution.releases.records import load_release

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        return load_release(session, release_id)


def ended_lines(release: "Release") -> list[str]:
    """A line for each stage that has ended, in order; those that were not required are left out."""
    return [
        f"{MARKS[stage.verdict]} {stage.stage}  {seconds(stage.waited_s + stage.worked_s)}"
        for stage in release.stages
        if stage.finished_us is not None and stage.verdict != "not required"
    ]


def advance(context: Context, release_id: str) -> None:
    """Run the automatic stages from where the release stands, then show it."""
    from konveyer.execution.releases.flow import run_from

    workspace = context.workspace
    found = loaded(context, release_id)
    run = run_from(found.state, release_id, found.attempt)
    if run is not None:
        with told_as_it_happens(
            lambda: ended_lines(loaded(context, release_id)), quiet=context.as_json
        ):
            workspace.run(run, purpose="konveyer release")
    show_release(context, release_id, must_pass=True)


def show_release(context: Context, release_id: str, *, must_pass: bool = False) -> None:
    """Print a release; with `must_pass` one that stopped makes the command exit with 1."""
    found = loaded(context, release_id)
    print_json(found) if context.as_json else print_release(found)
    if must_pass and found.state in STOPPED:
        click.get_current_context().exit(1)


def print_release(found: "Release") -> None:
    click.secho(f"{found.id}  {found.application}/v{found.api_version}  {found.state}", bold=True)
    click.echo(f"author {found.author}, opened {when(found.opened_us)}, bundle {found.digest[:19]}")
    rows = [
        (
            MARKS[stage.verdict],
            stage.stage,
            seconds(stage.waited_s),
            seconds(stage.worked_s),
            stage.measured,
            stage.limit,
        )
        for stage in found.stages
        if stage.verdict != "not required"
    ]
    columns = ("", "stage", "waited", "worked", "measured", "limit")
    print_table(columns, rows, empty="No stage has started.")
    skipped = [stage.stage for stage in found.stages if stage.verdict == "not required"]
    if skipped:
        click.echo(f"Not required: {', '.join(skipped)}.")
    for stage in found.stages:
        if stage.verdict in ("failed", "waived"):
            _print_evidence(stage)
    if found.reason:
        click.secho(f"Stopped: {found.reason}", fg="red")
    _print_next(found)


def _print_next(found: "Release") -> None:
    match found.state:
        case "review":
            click.echo(f"See what it changes: konveyer release diff {found.id}")
            click.echo(_waits(found, "a second person"))
        case "approval":
            click.echo(_waits(found, "a third person"))
        case "failed" if any(s.stage == "production" for s in found.stages):
            click.echo("Production serves what it did before. Correct it and submit again.")
        case "failed":
            click.echo("Correct it and submit again. When the gate was at fault:")
            click.echo(f"  konveyer release rerun {found.id}")
            click.echo(f"  konveyer release waive {found.id} --reason TEXT   (who may)")


def _waits(found: "Release", person: str) -> str:
    waited = seconds(found.waiting_s)
    return f"Has waited {waited} for {person}: konveyer release approve {found.id}"


def _print_evidence(stage: "StageRecord") -> None:
    """What a gate that said no has seen; the beginning of what is long."""
    for name, value in stage.evidence.items():
        text = value if isinstance(value, str) else pformat(value, width=100, compact=True)
        lines = text.splitlines()
        click.secho(f"{stage.stage}, {name}:", bold=True)
        click.echo(indent("\n".join(lines[:_MOST_LINES]), "  "))
        if len(lines) > _MOST_LINES:
            click.echo(f"  ... {len(lines) - _MOST_LINES} more lines: --json shows them")
