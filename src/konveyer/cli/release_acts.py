"""What people do with a release: approve, reject, waive, run again, withdraw, roll back."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.release_view import advance, print_release, show_release
from konveyer.cli.render import print_json

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from konveyer.access.actor import Actor

Act = Callable[["Session", "Actor", str], None]
_release = click.argument("release_id", metavar="RELEASE")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would be and change nothing.")


def _act(context: Context, release_id: str, act: Act, *, dry_run: bool) -> None:
    """Do `act` in one transaction, and undo it after showing when it is only tried."""
    from konveyer.execution.releases.records import load_release

    with context.workspace.catalog.transaction() as session:
        actor = context.actor(session)
        act(session, actor, release_id)
        session.flush()
        if dry_run:
            would_be = load_release(session, release_id)
            print_json(would_be) if context.as_json else print_release(would_be)
            session.rollback()


def _act_and_go_on(
    context: Context, release_id: str, act: Act, done: str, *, dry_run: bool
) -> None:
    if not dry_run:
        context.workspace.refuse_if_busy()
    _act(context, release_id, act, dry_run=dry_run)
    if not dry_run:
        _go_on(context, release_id, done)


def _act_and_end(context: Context, release_id: str, act: Act, *, dry_run: bool) -> None:
    from konveyer.execution.releases.live import publish_end

    _act(context, release_id, act, dry_run=dry_run)
    if not dry_run:
        publish_end(context.workspace.catalog, context.workspace.storage)
        show_release(context, release_id)


def _go_on(context: Context, release_id: str, done: str) -> None:
    if not context.as_json:
        click.echo(f"{release_id}: {done}, running what follows ...")
    advance(context, release_id)


@click.command()
@_release
@click.option("--comment", default="", help="What the author should know.")
@_dry_run
@pass_context
def approve(context: Context, release_id: str, comment: str, dry_run: bool) -> None:
    """Say yes in review, or in approval as a third person; what follows runs at once.

    \b
    Example: konveyer --profile boris release approve rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases import service

    act = partial(service.approve, comment=comment)
    _act_and_go_on(context, release_id, act, "approved", dry_run=dry_run)


@click.command()
@_release
@click.option("--reason", required=True, help="What is to be changed.")
@_dry_run
@pass_context
def reject(context: Context, release_id: str, reason: str, dry_run: bool) -> None:
    """Say no in review or approval.

    \b
    Example: konveyer release reject rel-01a20f41cfdb3908c07b --reason "uses a leaked column"
    """
    from konveyer.execution.releases import service

    _act_and_end(context, release_id, partial(service.reject, reason=reason), dry_run=dry_run)


@click.command()
@_release
@click.option("--reason", required=True, help="Why the release may go on all the same.")
@_dry_run
@pass_context
def waive(context: Context, release_id: str, reason: str, dry_run: bool) -> None:
    """Let a release go on although a gate failed. For QA and administrators, never the author.

    What the gate measured stays on record, with your name and reason.

    \b
    Example: konveyer release waive rel-01a20f41cfdb3908c07b --reason "p99 measured on a busy host"
    """
    from konveyer.execution.releases import service

    act = partial(service.waive, reason=reason)
    _act_and_go_on(context, release_id, act, "waived", dry_run=dry_run)


@click.command()
@_release
@_dry_run
@pass_context
def rerun(context: Context, release_id: str, dry_run: bool) -> None:
    """Let the gate that failed look again at the same bundle, and go on when it passes.

    For a gate that was at fault, such as a load gate on a busy machine.

    \b
    Example: konveyer release rerun rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases import service

    _act_and_go_on(context, release_id, service.rerun, "once more", dry_run=dry_run)


@click.command()
@_release
@click.option("--reason", default="", help="Why, for the record.")
@_dry_run
@pass_context
def withdraw(context: Context, release_id: str, reason: str, dry_run: bool) -> None:
    """Take back your release while it is on its way.

    \b
    Example: konveyer release withdraw rel-01a20f41cfdb3908c07b --reason "wrong training set"
    """
    from konveyer.execution.releases import service

    _act_and_end(context, release_id, partial(service.withdraw, reason=reason), dry_run=dry_run)


@click.command()
@_release
@_dry_run
@pass_context
def promote(context: Context, release_id: str, dry_run: bool) -> None:
    """End the canary stage of a release: it is to answer every request.

    \b
    Example: konveyer release promote rel-01a20f41cfdb3908c07b
    """
    from konveyer.catalog.leases import LeaseHeld
    from konveyer.execution.releases import service

    _act(context, release_id, service.promote, dry_run=dry_run)
    if dry_run:
        return
    try:
        _go_on(context, release_id, "promoted")
    except LeaseHeld:  # by the command that watches the canary, which goes on by itself
        show_release(context, release_id)


@click.command()
@_release
@click.option("--reason", required=True, help="What is wrong with it.")
@click.option("--to", metavar="RELEASE", help="The release to serve (default: the one before).")
@_dry_run
@pass_context
def rollback(context: Context, release_id: str, reason: str, to: str | None, dry_run: bool) -> None:
    """Let production serve an earlier release again at once, or end the canary of RELEASE.

    RELEASE may be APPLICATION/vN too, for what production serves there. No gate runs: what
    production served before has been through all of them.

    \b
    Example: konveyer release rollback coupon-response/v1 --reason "refuses every student"
    """
    from konveyer.execution.releases.rollback import plan_rollback, roll_back

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
        plan = plan_rollback(session, workspace.bundles, actor, release_id, to)
    if not dry_run:
        plan = roll_back(
            workspace.catalog,
            workspace.bundles,
            workspace.storage,
            actor,
            plan.release,  # not what another person's rollback has put there meanwhile
            reason=reason,
            to=to,
        )
    if context.as_json:
        print_json(plan)
        return
    done = "would serve" if dry_run else "serves"
    click.echo(
        f"{plan.application}/v{plan.api_version}: production {done} "
        f"{plan.serves or 'nothing'} instead of {plan.release}."
    )


@click.command("continue")
@_release
@pass_context
def continue_(context: Context, release_id: str) -> None:
    """Take on a release whose run was interrupted; harmless when nothing is to be done.

    \b
    Example: konveyer release continue rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases.service import resume

    with context.workspace.catalog.reading() as session:
        resume(session, context.actor(session), release_id)
    advance(context, release_id)


ACTS: tuple[Any, ...] = (
    approve,
    reject,
    waive,
    rerun,
    withdraw,
    promote,
    rollback,
    continue_,
)
