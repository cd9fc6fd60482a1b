"""What people do with releases: submit, approve, reject."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.store import Bundle
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.core.errors import Conflict, Forbidden, KonveyerError
from konveyer.core.ids import new_id
from konveyer.execution.releases.machine import STAGES, Action, State, next_state
from konveyer.execution.releases.records import (
    begin_stage,
    last_finish_us,
    release_row,
    stage_row,
)
from konveyer.execution.releases.tables import ReleaseRow


class ReleaseInFlight(Conflict):
    """Another release of this version of the application is on its way."""

    code = "release_in_flight"


class OwnRelease(Forbidden):
    """The author of a release cannot review it."""

    code = "own_release"


class ReasonMissing(KonveyerError):
    code = "reason_missing"


def open_release(session: Session, actor: Actor, bundle: Bundle) -> str:
    """Put a bundle on the conveyor; its first stage is still to run."""
    manifest = bundle.manifest
    check_free(session, actor, manifest.application, manifest.api_version)
    release = new_id("rel")
    session.add(
        ReleaseRow(
            id=release,
            application=manifest.application,
            api_version=manifest.api_version,
            digest=bundle.digest,
            author=actor.name,
            state=str(State.CHECKS),
            opened_us=now_us(),
        )
    )
    session.flush()
    audit.record(session, actor.name, "submitted", "release", release, bundle=bundle.digest)
    return release


def approve(session: Session, actor: Actor, release: str, *, comment: str = "") -> None:
    """A second person's yes; the gates that follow are still to run. A repeated yes is harmless."""
    row = _reviewable(session, actor, release)
    if State(row.state) in (*STAGES[2:], State.LIVE):
        return
    _review(session, actor, row, Action.APPROVE, comment)


def resume(session: Session, actor: Actor, release: str) -> None:
    """May the actor take on an interrupted release? Its author may, and who may review it."""
    row = release_row(session, release)
    if row.author != actor.name:
        actor.require(Permission.REVIEW_RELEASE)


def check_free(session: Session, actor: Actor, application: str, api_version: int) -> None:
    """Raise unless the actor may submit a release of this version now."""
    actor.require(Permission.SUBMIT_RELEASE)
    in_flight = session.scalars(
        select(ReleaseRow)
        .where(ReleaseRow.application == application)
        .where(ReleaseRow.api_version == api_version)
        .where(ReleaseRow.state.in_([str(stage) for stage in STAGES]))
    ).first()
    if in_flight is not None:
        raise ReleaseInFlight(
            f"Release {in_flight.id} of {application}/v{api_version} is in '{in_flight.state}'.",
            hint=f"konveyer release continue {in_flight.id}, or wait for it; one in review may be "
            f"rejected: konveyer release reject {in_flight.id} --reason TEXT",
        )


def reject(session: Session, actor: Actor, release: str, *, reason: str) -> None:
    """A second person's no, with the reason that the author reads."""
    if not reason.strip():
        raise ReasonMissing("A rejection needs a reason.", hint="say what is to be changed")
    row = _reviewable(session, actor, release)
    _review(session, actor, row, Action.REJECT, reason)
    row.reason, row.ended_us = f"rejected by {actor.name}: {reason}", now_us()


def _reviewable(session: Session, actor: Actor, release: str) -> ReleaseRow:
    row = release_row(session, release)
    actor.require(Permission.REVIEW_RELEASE)
    if row.author == actor.name:
        raise OwnRelease(
            f"{actor.name} is the author of release {release} and cannot review it.",
            hint="ask another person who may review releases",
        )
    return row


def _review(session: Session, actor: Actor, row: ReleaseRow, action: Action, text: str) -> None:
    following = next_state(row.id, State(row.state), action)
    waiting_us = last_finish_us(session, row)
    begin_stage(session, row.id, State.REVIEW, waiting_us=waiting_us, by=actor.name)
    stage = stage_row(session, row.id, State.REVIEW)
    stage.verdict = "passed" if action is Action.APPROVE else "failed"
    stage.rule, stage.limit = "a second person approves", "not the author"
    stage.measured = f"{'approved' if action is Action.APPROVE else 'rejected'} by {actor.name}"
    stage.evidence = {"author": row.author, "reviewer": actor.name, "comment": text}
    stage.by, stage.finished_us = actor.name, now_us()
    row.state = str(following)
    done = "approved" if action is Action.APPROVE else "rejected"
    audit.record(session, actor.name, done, "release", row.id, comment=text)
