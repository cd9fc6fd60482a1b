"""Releases and what is live over HTTP."""

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Response
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.api.access import Caller, Here, Reader
from konveyer.api.body import Body, Limit
from konveyer.execution.releases import flow, service
from konveyer.execution.releases.compare import compare
from konveyer.execution.releases.difference import Difference
from konveyer.execution.releases.lead_time import LeadTimes
from konveyer.execution.releases.live import publish_end
from konveyer.execution.releases.period import lead_times_since
from konveyer.execution.releases.records import (
    LiveVersion,
    Release,
    list_releases,
    live_versions,
    load_release,
)
from konveyer.execution.releases.rollback import Rollback, plan_rollback, roll_back
from konveyer.execution.releases.submission import plan_submission
from konveyer.execution.releases.submission import submit as submit_run
from konveyer.wiring import Workspace

router = APIRouter(tags=["execution"])
Act = Callable[[Session, Actor, str], None]


def _dry_run(
    response: Response,
    dry_run: Annotated[bool, Query(description="Show what would be and change nothing.")] = False,
) -> bool:
    if dry_run:
        response.status_code = HTTPStatus.OK  # nothing follows that a caller could wait for
    return dry_run


DryRun = Annotated[bool, Depends(_dry_run)]


class SubmitOrder(Body):
    """`run` is a training run; without it, the newest of the application.

    With `project`, such as `models/coupon_response`, the newest that was trained from that folder.
    """

    application: str
    project: str | None = None
    run: str | None = None


class Approval(Body):
    comment: str = ""


class Reason(Body):
    reason: str


class Withdrawal(Body):
    reason: str = ""


class RollbackOrder(Body):
    """`to` is the release to serve instead; without it, the one that production served before."""

    reason: str
    to: str | None = None


@router.get("/models")
def models(here: Here, _reader: Reader, environment: str | None = None) -> list[LiveVersion]:
    """What is served now."""
    with here.catalog.reading() as session:
        return live_versions(session, environment)


@router.get("/releases")
def releases(
    here: Here,
    _reader: Reader,
    application: str | None = None,
    limit: Limit = 50,
) -> list[Release]:
    """Newest first, each with its stages."""
    with here.catalog.reading() as session:
        return list_releases(session, application=application, limit=limit)


@router.post("/releases", status_code=202)
def submit(here: Here, caller: Caller, order: SubmitOrder, later: BackgroundTasks) -> Release:
    """Pack a kept training run and open its release; the checks run in the pipeline worker."""
    here.refuse_if_busy()
    planned = plan_submission(
        here.catalog, here.workshop, caller, order.application, order.run, order.project
    )
    release = submit_run(
        here.catalog, here.bundles, here.workshop, here.settings.releases, caller, planned
    )
    with here.catalog.reading() as session:
        opened = load_release(session, release)
    _go_on(here, opened, later)
    return opened


@router.get("/lead-time")
def lead_time(
    here: Here, _reader: Reader, since: str = "90d", application: str | None = None
) -> LeadTimes:
    """From submission to production since `since` (`90d`, or a time), in working days.

    Of each stage the median, waiting and working apart.
    """
    goal_days = here.settings.releases.lead_time_days
    with here.catalog.reading() as session:
        return lead_times_since(session, since, application=application, goal_days=goal_days)


@router.get("/releases/{release}")
def show(here: Here, _reader: Reader, release: str) -> Release:
    """One release: each stage with its rule, measurement, limit and evidence."""
    with here.catalog.reading() as session:
        return load_release(session, release)


@router.get("/releases/{release}/diff")
def diff(here: Here, _reader: Reader, release: str) -> Difference:
    """What the release changes against the version that production serves, or served before it."""
    return compare(here.catalog, here.bundles, release)


@router.post("/releases/{release}/approval", status_code=202)
def approve(
    here: Here,
    caller: Caller,
    release: str,
    approval: Approval,
    later: BackgroundTasks,
    dry_run: DryRun,
) -> Release:
    """A yes in review, or in approval as a third person; the worker runs what follows."""
    act = partial(service.approve, comment=approval.comment)
    return _acted(here, caller, release, act, later, dry_run=dry_run)


@router.post("/releases/{release}/rejection")
def reject(here: Here, caller: Caller, release: str, rejection: Reason, dry_run: DryRun) -> Release:
    """A no in review or approval, with the reason."""
    act = partial(service.reject, reason=rejection.reason)
    return _ended(here, caller, release, act, dry_run=dry_run)


@router.post("/releases/{release}/waiver", status_code=202)
def waive(
    here: Here,
    caller: Caller,
    release: str,
    waiver: Reason,
    later: BackgroundTasks,
    dry_run: DryRun,
) -> Release:
    """Let a release go on although a gate failed; for QA and administrators, never the author."""
    act = partial(service.waive, reason=waiver.reason)
    return _acted(here, caller, release, act, later, dry_run=dry_run)


@router.post("/releases/{release}/rerun", status_code=202)
def rerun(
    here: Here, caller: Caller, release: str, later: BackgroundTasks, dry_run: DryRun
) -> Release:
    """Let a gate that failed look again at the same bundle."""
    return _acted(here, caller, release, service.rerun, later, dry_run=dry_run)


@router.post("/releases/{release}/withdrawal")
def withdraw(
    here: Here, caller: Caller, release: str, withdrawal: Withdrawal, dry_run: DryRun
) -> Release:
    """The author, or an administrator, takes back a release that is on its way."""
    act = partial(service.withdraw, reason=withdrawal.reason)
    return _ended(here, caller, release, act, dry_run=dry_run)


@router.post("/releases/{release}/promotion", status_code=202)
def promote(
    here: Here, caller: Caller, release: str, later: BackgroundTasks, dry_run: DryRun
) -> Release:
    """End the canary stage: the release is to answer every request."""
    found = _done(here, caller, release, service.promote, dry_run=dry_run)
    if not dry_run:
        _go_on(here, found, later)
    return found


@router.post("/releases/{release}/continuation", status_code=202)
def continue_(here: Here, caller: Caller, release: str, later: BackgroundTasks) -> Release:
    """Take on a release whose run was interrupted; harmless when nothing is to be done."""
    here.refuse_if_busy()
    with here.catalog.reading() as session:
        service.resume(session, caller, release)
        found = load_release(session, release)
    _go_on(here, found, later)
    return found


@router.post("/releases/{release:path}/rollback")
def rollback(
    here: Here, caller: Caller, release: str, order: RollbackOrder, dry_run: DryRun
) -> Rollback:
    """Let production serve an earlier release again at once, or end a canary."""
    if dry_run:
        with here.catalog.reading() as session:
            return plan_rollback(session, here.bundles, caller, release, order.to)
    return roll_back(
        here.catalog,
        here.bundles,
        here.storage,
        caller,
        release,
        reason=order.reason,
        to=order.to,
    )


def _acted(
    here: Workspace,
    caller: Actor,
    release: str,
    act: Act,
    later: BackgroundTasks,
    *,
    dry_run: bool,
) -> Release:
    """The release after `act`; the worker runs what follows."""
    if dry_run:
        return _done(here, caller, release, act, dry_run=True)
    here.refuse_if_busy()
    found = _done(here, caller, release, act, dry_run=False)
    _go_on(here, found, later)
    return found


def _ended(here: Workspace, caller: Actor, release: str, act: Act, *, dry_run: bool) -> Release:
    """The release after `act`; nodes are told that it has ended."""
    found = _done(here, caller, release, act, dry_run=dry_run)
    if not dry_run:
        publish_end(here.catalog, here.storage)
    return found


def _done(here: Workspace, caller: Actor, release: str, act: Act, *, dry_run: bool) -> Release:
    """The release after `act`, in one transaction that is undone when it is only tried."""
    with here.catalog.transaction() as session:
        act(session, caller, release)
        session.flush()
        found = load_release(session, release)
        if dry_run:
            session.rollback()
    return found


def _go_on(here: Workspace, release: Release, later: BackgroundTasks) -> None:
    run = flow.run_from(release.state, release.id, release.attempt)
    if run is not None:
        later.add_task(here.run, run, purpose="POST /api/releases")
