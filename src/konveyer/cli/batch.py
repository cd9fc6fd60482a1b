"""`konveyer batch`: score many entities at once with a released model."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from konveyer.cli.context import LIMIT, Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when

if TYPE_CHECKING:
    from konveyer.execution.batch.order import BatchOrder, Given
    from konveyer.execution.batch.runs import BatchRun

_LOOK_EVERY_S = 0.3


@click.group()
def batch() -> None:
    """Score every entity, or a table of them, with a released model."""


@batch.command()
@click.argument("model")
@click.option("--from", "start", help="Every known entity at this time (default: now) ...")
@click.option("--to", "end", help="... and again until this time (default: only once),")
@click.option("--every", default="1d", show_default=True, help="this far apart.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Score these rows instead: a Parquet file, a folder of them, or a Delta table.",
)
@click.option("--timestamp", help="The column of --table with the time of each row.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY=COLUMN",
    help="The column of a join key in --table, where it has another name. May repeat.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be scored and do nothing.")
@pass_context
def run(
    context: Context,
    /,
    model: str,
    start: str | None,
    end: str | None,
    every: str,
    dry_run: bool,
    **table: Any,
) -> None:
    """Score with MODEL (application/v1), as production serves it, into its table of scores.

    Features are as they were at the time of each period. The rows of a period appear at once, and
    scoring it again replaces them. A run that was killed goes on with the next command.

    \b
    Examples: konveyer batch run coupon-response/v1 --from 2017-10-01 --to 2017-12-01 --every 7d
              konveyer batch run coupon-response/v1 --table data/mailing.parquet
    """
    from konveyer.execution.batch.plan import plan_batch

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        order = plan_batch(
            session,
            context.actor(session),
            workspace.bundles,
            model,
            moments_us=_moments(context, start, end, every),
            given=_given(context, **table),
        )
    if dry_run:
        _show_plan(context, order)
        return
    try:
        with _bar(context, order):
            workspace.run(order.run, purpose="konveyer batch run")
    finally:
        periods = _periods(context, order)
        if periods and not context.as_json:
            _show_runs(periods)
    if context.as_json:
        print_json({"run_id": order.run_id, "table": _table(context, order), "periods": periods})
        return
    click.echo(f"Scores: {_table(context, order)}")


@batch.command()
@click.option("--model", help="Only runs of this application.")
@click.option("--limit", type=LIMIT, default=20, show_default=True)
@pass_context
def runs(context: Context, model: str | None, limit: int) -> None:
    """The record of runs, newest first.

    \b
    Example: konveyer batch runs --model coupon-response
    """
    from konveyer.execution.batch.runs import list_batch_runs

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        application = None if model is None else model.partition("/")[0]
        found = list_batch_runs(session, application=application, limit=limit)
    if context.as_json:
        print_json(found)
    else:
        _show_runs(found)


@batch.command("list")
@pass_context
def list_models(context: Context) -> None:
    """The models that production serves, where their scores are, and when they are scored.

    \b
    Example: konveyer batch list
    """
    from konveyer.execution.batch.output import table_of
    from konveyer.execution.batch.schedule import scheduled_models
    from konveyer.execution.releases.environments import PROD

    workspace = context.workspace
    now_us = context.settings.clock.now_us()
    with workspace.catalog.reading() as session:
        context.reader(session)
        found = scheduled_models(session, workspace.bundles, PROD, now_us)
    tables = [
        str(table_of(workspace.scores, one.live.application, one.live.api_version).folder)
        for one in found
    ]
    if context.as_json:
        shown = zip(found, tables, strict=True)
        print_json([{**msgspec.to_builtins(one), "table": table} for one, table in shown])
        return
    rows = [
        (
            f"{one.live.application}/v{one.live.api_version}",
            one.live.release,
            one.every,
            when(one.last_us),
            when(one.next_us),
            table,
            one.error,
        )
        for one, table in zip(found, tables, strict=True)
    ]
    columns = ("model", "release", "every", "last period", "next due", "table", "error")
    print_table(columns, rows, empty="No model is live. Release one: konveyer submit PROJECT")


def _moments(context: Context, start: str | None, end: str | None, every: str) -> list[int]:
    from konveyer.core.clock import parse_instant
    from konveyer.feature_store.datamart.entities import cadence
    from konveyer.feature_store.definitions.duration import duration_us, parse_duration

    if end is not None and start is None:
        raise click.UsageError("--to needs --from.")
    first = context.settings.clock.now_us() if start is None else parse_instant(start)
    last = first if end is None else parse_instant(end)
    step = duration_us(parse_duration(every, where="--every"))
    return [int(moment) for moment in cadence(first, last, step)]


def _given(
    context: Context, table: Path | None, timestamp: str | None, keys: tuple[str, ...]
) -> "Given | None":
    from konveyer.execution.batch.order import Given

    if table is None:
        if timestamp or keys:
            raise click.UsageError("--timestamp and --key describe the columns of a --table.")
        return None
    pairs = [key.partition("=") for key in keys]
    if not all(name and column for name, _, column in pairs):
        raise click.UsageError("--key is written as KEY=COLUMN.")
    path = context.found(table).resolve()
    columns = {name: column for name, _, column in pairs}
    return Given(path=str(path), timestamp=timestamp, columns=columns)


@contextmanager
def _bar(context: Context, order: "BatchOrder") -> Iterator[None]:
    """A bar that fills while periods are scored; a thread of its own looks at the record."""
    if context.as_json:
        yield
        return
    count = len(order.periods)
    with click.progressbar(length=count * 1000, label=f"Scoring {count} period(s)") as bar:
        shown, ended = 0, threading.Event()

        def show() -> None:
            nonlocal shown
            done = int(sum(map(_done, _periods(context, order))) * 1000)
            bar.update(done - shown)
            shown = done

        thread = threading.Thread(target=_again_until, args=(ended, show), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            show()


def _again_until(ended: threading.Event, show: Callable[[], None]) -> None:
    while not ended.wait(_LOOK_EVERY_S):
        show()


def _done(period: "BatchRun") -> float:
    """How much of a period is done, from 0 to 1: features are the larger part of the work."""
    if period.finished_us is not None:
        return 1.0
    return 0.5 * (period.rows or 0) / period.rows_asked if period.rows_asked else 0.0


def _periods(context: Context, order: "BatchOrder") -> "list[BatchRun]":
    from konveyer.execution.batch.runs import periods_of

    with context.workspace.catalog.reading() as session:
        return periods_of(session, order.run_id)


def _table(context: Context, order: "BatchOrder") -> Path:
    from konveyer.execution.batch.output import table_of

    return table_of(context.workspace.scores, order.application, order.api_version).folder


def _show_plan(context: Context, order: "BatchOrder") -> None:
    if context.as_json:
        print_json({"order": order, "table": _table(context, order)})
        return
    rows = [(period.name, when(period.at_us)) for period in order.periods]
    print_table(("period", "event time"), rows, empty="Nothing to score.")
    click.echo(
        f"{order.model}, release {order.release}, into {_table(context, order)}. "
        "Nothing was done (dry run)."
    )


def _show_runs(found: "list[BatchRun]") -> None:
    rows = [
        (
            f"{run.application}/v{run.api_version}",
            run.period,
            run.status,
            run.person,
            when(run.started_us),
            seconds(run.duration_s),
            run.rows,
            run.release,
            (run.error or {}).get("message", ""),
        )
        for run in found
    ]
    columns = ("model", "period", "status", "who", "start", "took", "rows", "release", "error")
    print_table(columns, rows, empty="No runs yet. Start one: konveyer batch run MODEL")
