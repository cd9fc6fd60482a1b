"""`konveyer etl`: compute, check and publish features, and keep their tables small."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import LIMIT, Context, pass_context
from konveyer.cli.progress import told_as_it_happens
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, size, when

if TYPE_CHECKING:
    from konveyer.feature_store.etl.flow import PlannedView
    from konveyer.feature_store.etl.vacuum import TableVacuum
    from konveyer.feature_store.push.vacuum import SegmentVacuum

_MARKS = {"succeeded": "✓", "failed": "✗"}


@click.group()
def etl() -> None:
    """Compute feature views, and see how their runs went."""


@etl.command()
@click.argument("views", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be computed and do nothing.")
@pass_context
def run(context: Context, views: tuple[str, ...], dry_run: bool) -> None:
    """Compute VIEWS (default: all), check their values, and publish the newest online.

    Versions that releases were trained on are computed too, for as long as they are served. A view
    that fails keeps its earlier values, offline and online. A run that was killed goes on
    where it stopped when the next command starts.

    \b
    Example: konveyer etl run basket_activity
    """
    _run(context, views, dry_run=dry_run, again=False)


@etl.command()
@click.argument("views", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be published and do nothing.")
@pass_context
def publish(context: Context, views: tuple[str, ...], dry_run: bool) -> None:
    """Put the values of VIEWS (default: all) online once more, without computing them.

    For an online store that is new in konveyer.toml, or that came back empty.

    \b
    Example: konveyer etl publish
    """
    _run(context, views, dry_run=dry_run, again=True)


def _run(context: Context, views: tuple[str, ...], *, dry_run: bool, again: bool) -> None:
    from konveyer.feature_store.etl.plan import plan_etl
    from konveyer.feature_store.etl.runs import runs_of

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
        plan = plan_etl(
            session,
            actor,
            views,
            as_of_us=context.settings.clock.now_us(),
            pins=workspace.release_pins(session),
            again=again,
        )
    if dry_run:
        _show_plan(context, plan.views, plan.as_of_us)
        return
    if not context.as_json:
        what = "Publishing" if again else "Computing"
        click.echo(f"{what} {len(plan.views)} view(s) as of {when(plan.as_of_us)} ...")

    def ended() -> list[str]:
        with workspace.catalog.reading() as session:
            done = [run for run in runs_of(session, plan.run_id) if run.finished_us is not None]
        return [
            f"{_MARKS[run.status]} {run.view} {run.version}  {seconds(run.duration_s)}"
            for run in done
        ]

    def under_way() -> list[tuple[str, int, int]]:
        with workspace.catalog.reading() as session:
            found = runs_of(session, plan.run_id)
        return [
            (f"  {run.view} {run.version}: {run.stage.name}", run.stage.done, run.stage.of)
            for run in found
            if run.stage is not None
        ]

    try:
        with told_as_it_happens(ended, quiet=context.as_json, under_way=under_way):
            workspace.run(plan.run, purpose=f"konveyer etl {'publish' if again else 'run'}")
    finally:
        with workspace.catalog.reading() as session:
            runs = runs_of(session, plan.run_id)
        if runs and not context.as_json:
            _show_runs(runs)
    if context.as_json:
        print_json({"run_id": plan.run_id, "views": runs})


@etl.command()
@click.option("--view", help="Only runs of this view.")
@click.option("--limit", type=LIMIT, default=20, show_default=True)
@pass_context
def runs(context: Context, view: str | None, limit: int) -> None:
    """The record of runs, newest first.

    \b
    Example: konveyer etl runs --view basket_activity
    """
    from konveyer.feature_store.etl.runs import list_runs

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = list_runs(session, view=view, limit=limit)
    if context.as_json:
        print_json(found)
    else:
        _show_runs(found)


@etl.command()
@pass_context
def schedule(context: Context) -> None:
    """When each view is computed next by itself, while 'konveyer up' or a worker runs.

    A view is computed once in each period of its refresh, which is counted in UTC: 1d begins at
    midnight. What fails is tried again in the next period; 'konveyer etl run' does not wait.

    \b
    Example: konveyer etl schedule
    """
    from konveyer.execution.releases.pins import HeldViews
    from konveyer.feature_store.etl.schedule import scheduled_views
    from konveyer.pipeline.run import is_served

    workspace, settings = context.workspace, context.settings
    with workspace.catalog.reading() as session:
        context.reader(session)
        views = scheduled_views(session, HeldViews(workspace.bundles), settings.clock.now_us())
    off = _why_nothing_starts(
        settings.workspace.feature_time, settings.etl.schedule, is_served(workspace.catalog)
    )
    if context.as_json:
        print_json({"on": off is None, "off_because": off, "views": views})
        return
    rows = [
        (
            one.view,
            one.version,
            one.refresh,
            when(one.last.started_us) if one.last else "never",
            one.last.status if one.last else "",
            one.last.person if one.last else "",
            "" if settings.clock.fixed_us is not None else when(one.next_us),
        )
        for one in views
    ]
    columns = ("view", "version", "refresh", "last run", "status", "who", "next due")
    print_table(columns, rows, empty="No feature views are registered. Run: konveyer apply")
    if off is not None:
        click.echo(f"Nothing starts by itself: {off}.")


def _why_nothing_starts(feature_time: str | None, wanted: bool, served: bool) -> str | None:
    if feature_time is not None:
        return "feature_time is fixed in konveyer.toml, so no refresh ever comes"
    if not wanted:
        return "konveyer.toml has schedule = false under [etl]"
    return None if served else "no worker runs; start one: konveyer up"


@etl.command("vacuum")
@click.argument("views", nargs=-1)
@click.option(
    "--keep",
    default="7d",
    show_default=True,
    help="Leave what stopped being readable in this time: a reader may still be under way.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed and do nothing.")
@pass_context
def vacuum_command(context: Context, views: tuple[str, ...], keep: str, dry_run: bool) -> None:
    """Remove the files of table versions that nobody can ask for any more.

    Of the tables of VIEWS (default: all). What is readable stays, and what a kept training set or
    a release that is live or on its way is pinned to. Tables and online records of definitions
    that nothing refers to any more go whole. Without VIEWS, so do files of pushed rows in which no
    push is, a day after they were left.

    \b
    Example: konveyer etl vacuum --dry-run
    """
    from konveyer.feature_store.definitions.duration import duration_us, parse_duration
    from konveyer.feature_store.etl.vacuum import plan_vacuum, vacuum
    from konveyer.feature_store.push.vacuum import plan_segments, vacuum_segments

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    keep_us = 0 if keep == "0" else duration_us(parse_duration(keep, where="--keep"))
    plan = plan_vacuum(
        workspace.catalog, actor, workspace.offline, workspace.pins, views=views, keep_us=keep_us
    )
    folder = workspace.etl.pushed
    segments = plan_segments(workspace.catalog, actor, folder, keep_us=keep_us) if not views else []
    if not dry_run:
        vacuum_segments(workspace.catalog, actor, folder, segments)
        online = workspace.published
        vacuum(workspace.catalog, actor, workspace.offline, online, workspace.pins, plan)
    if context.as_json:
        print_json({"tables": plan, "segments": segments, "done": not dry_run})
        return
    _show_vacuum(plan, segments, dry_run)


def _show_vacuum(
    plan: "Sequence[TableVacuum]", segments: "Sequence[SegmentVacuum]", dry_run: bool
) -> None:
    rows = [
        (
            table.view,
            table.version,
            "whole table" if table.drop else len(table.files) or "",
            size(table.size_bytes) if table.changes else "",
            table.skipped or "\n".join(f"v{one.table_version}: {one.reason}" for one in table.kept),
        )
        for table in plan
    ]
    columns = ("view", "version", "files", "size", "stays")
    print_table(columns, rows, empty="There are no tables yet. Run: konveyer etl run")
    for one in segments:
        click.echo(f"pushed rows of {one.source}: {len(one.files)} file(s) in which no push is")
    sizes = [table.size_bytes for table in plan] + [one.size_bytes for one in segments]
    freed = size(sum(sizes))
    click.echo(f"{freed} would be freed (dry run)." if dry_run else f"{freed} freed.")


def _show_plan(context: Context, views: "tuple[PlannedView, ...]", as_of_us: int) -> None:
    if context.as_json:
        print_json({"views": views, "as_of": when(as_of_us)})
        return
    rows = [(one.view, one.version) for one in views]
    print_table(("view", "version"), rows, empty="Nothing to compute.")
    click.echo(f"As of {when(as_of_us)}. Nothing was done (dry run).")


def _show_runs(runs: list) -> None:  # type: ignore[type-arg]
    rows = [
        (
            run.view,
            run.version,
            run.status,
            run.person,
            when(run.started_us),
            seconds(run.duration_s),
            run.rows,
            run.published,
            run.table_version,
            (run.error or {}).get("message", ""),
        )
        for run in runs
    ]
    columns = (
        "view",
        "version",
        "status",
        "who",
        "start",
        "took",
        "rows",
        "online",
        "table",
        "error",
    )
    print_table(columns, rows, empty="No runs yet. Start one: konveyer etl run")
