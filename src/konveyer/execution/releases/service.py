"""What people do with releases: submit, approve, reject, waive, run again, withdraw, promote."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.store import Bundle
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.core.errors import Conflict, Forbidden, KonveyerError
from konveyer.core.ids import new_id
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.machine import HUMAN, STAGES, Action, State
from konveyer.execution.releases.records import (
    begin_stage,
    current_live,
    last_finish_us,
    release_row,
    stage_row,
    stage_row_or_none,
)
from konveyer.execution.releases.tables import ReleaseRow
from konveyer.execution.releases.transitions import failed_stage, move

_RULES = {
    State.REVIEW: ("a second person approves", "not the author"),
    State.APPROVAL: ("a third person approves", "neither the author nor the reviewer"),
}


class ReleaseInFlight(Conflict):
    """Another release of this version of the application is on its way."""

    code = "release_in_flight"


class OwnRelease(Forbidden):
    """Who submitted a release, or trained its model, does not judge it, nor pass over its gates."""

    code = "own_release"


class NotAuthor(Forbidden):
    """Somebody else than the author of a release, and no administrator, takes it back."""

    code = "not_author"


class SamePerson(Forbidden):
    """Author, reviewer and approver of a release are different people."""

    code = "same_person"


class Outdated(Conflict):
    """Production serves another release than the one that a failed release was compared with."""

    code = "release_outdated"


class ReasonMissing(KonveyerError):
    code = "reason_missing"


def open_release(
    session: Session, actor: Actor, bundle: Bundle, *, required: Sequence[State] = ()
) -> str:
    """Put a bundle on the conveyor, through the `required` optional stages too.

    Its first stage is still to run.
    """
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
            trained_by=manifest.trained_by,
            state=str(State.CHECKS),
            required=[str(stage) for stage in required],
            opened_us=now_us(),
        )
    )
    session.flush()
    audit.record(session, actor.name, "submitted", "release", release, bundle=bundle.digest)
    return release


def approve(session: Session, actor: Actor, release: str, *, comment: str = "") -> None:
    """A yes in review, or in approval by a third person; what follows is still to run.

    A yes that the same person repeats is harmless.
    """
    row = release_row(session, release)
    if _said_yes(session, row, actor):
        return
    stage = _decidable(session, actor, row)
    _decide(session, actor, row, stage, Action.APPROVE, comment)


def reject(session: Session, actor: Actor, release: str, *, reason: str) -> None:
    """A no in review or approval, with the reason that the author reads."""
    need_reason(reason, "A rejection needs a reason.", "say what is to be changed")
    row = release_row(session, release)
    stage = _decidable(session, actor, row)
    _decide(session, actor, row, stage, Action.REJECT, reason)
    row.reason = f"rejected by {actor.name}: {reason}"


def waive(session: Session, actor: Actor, release: str, *, reason: str) -> None:
    """Let a release go on although a gate failed; the gates that follow are still to run.

    What the gate measured stays on record, beside who waived it and why.
    """
    actor.require(Permission.WAIVE_GATE)
    need_reason(reason, "A waiver needs a reason.", "say why the release may go on all the same")
    row = release_row(session, release)
    _refuse_author(actor, row, "waive a gate of")
    stage = failed_stage(session, row)
    _revive(session, row, Action.WAIVE, actor, reason=reason)
    record = stage_row(session, row.id, stage)
    record.verdict = "waived"
    record.evidence = {**record.evidence, "waived": {"by": actor.name, "reason": reason}}


def rerun(session: Session, actor: Actor, release: str) -> None:
    """Let a gate that failed look again at the same bundle; it is still to run.

    Its author may, and who may review it. What it measured before is in the audit log.
    """
    resume(session, actor, release)
    row = release_row(session, release)
    stage = failed_stage(session, row)
    before = stage_row(session, row.id, stage)
    _revive(session, row, Action.RERUN, actor, measured=before.measured)
    session.delete(before)
    row.attempt += 1


def _revive(session: Session, row: ReleaseRow, action: Action, actor: Actor, **said: str) -> None:
    """Take on a release that failed, unless production has taken up another one since and
    integration, which looks after callers of that, is not to run again.
    """
    refuse_others(session, row.application, row.api_version)
    live, failed_us = current_live(session, PROD, row.application, row.api_version), row.ended_us
    following = move(session, row, action, actor.name, **said)
    is_compared = STAGES.index(following) <= STAGES.index(State.INTEGRATION)
    if live is not None and live.since_us > (failed_us or 0) and not is_compared:
        raise Outdated(
            f"Production has taken up release {live.release_id} since release {row.id} failed: "
            "nobody has looked whether its callers could stay as they are.",
            hint="submit it again",
        )


def withdraw(session: Session, actor: Actor, release: str, *, reason: str = "") -> None:
    """The author takes back a release that is on its way; an administrator may too."""
    row = release_row(session, release)
    if row.author != actor.name and not actor.may(Permission.MANAGE_PEOPLE):
        raise NotAuthor(
            f"{actor.name} is not the author of release {row.id} and cannot withdraw it.",
            hint=f"ask {row.author} or an administrator",
        )
    move(session, row, Action.WITHDRAW, actor.name, reason=reason)
    row.reason = f"withdrawn by {actor.name}" + (f": {reason}" if reason else "")


def promote(session: Session, actor: Actor, release: str) -> None:
    """End a canary early: all requests are to go to the release.

    Its author may not: what is left of the gate would be passed over.
    """
    actor.require(Permission.OPERATE_RELEASE)
    row = release_row(session, release)
    _refuse_author(actor, row, "promote")
    move(session, row, Action.PROMOTE, actor.name)
    begin_stage(session, row.id, State.CANARY, waiting_us=last_finish_us(session, row), by="")
    stage = stage_row(session, row.id, State.CANARY)
    stage.verdict, stage.by, stage.finished_us = "passed", actor.name, now_us()
    stage.rule, stage.limit = "a person promotes it", "may operate releases"
    stage.measured = f"promoted by {actor.name}"


def resume(session: Session, actor: Actor, release: str) -> None:
    """May the actor take on an interrupted release? Its author may, and who may review it."""
    row = release_row(session, release)
    if row.author != actor.name:
        actor.require(Permission.REVIEW_RELEASE)


def check_free(session: Session, actor: Actor, application: str, api_version: int) -> None:
    """Raise unless the actor may submit a release of this version now."""
    actor.require(Permission.SUBMIT_RELEASE)
    refuse_others(session, application, api_version)


def refuse_others(session: Session, application: str, api_version: int) -> None:
    """Raise while a release of this version is on its way."""
    in_flight = session.scalars(
        select(ReleaseRow)
        .where(ReleaseRow.application == application)
        .where(ReleaseRow.api_version == api_version)
        .where(ReleaseRow.state.in_([str(stage) for stage in STAGES]))
    ).first()
    if in_flight is not None:
        raise ReleaseInFlight(
            f"Release {in_flight.id} of {application}/v{api_version} is in '{in_flight.state}'.",
            hint=f"wait for it, or let its author withdraw it: "
            f"konveyer release withdraw {in_flight.id}",
        )


def _said_yes(session: Session, row: ReleaseRow, actor: Actor) -> bool:
    """Whether the last decision on the release is this person's yes, and it has gone on since."""
    said = [stage for stage in HUMAN if _decided_by(session, row, stage) == actor.name]
    passed = (*STAGES[STAGES.index(said[-1]) + 1 :], State.LIVE) if said else ()
    return row.state in passed and row.state not in HUMAN


def _decided_by(session: Session, row: ReleaseRow, stage: State) -> str | None:
    """Who passed this stage of people; None when nobody did."""
    found = stage_row_or_none(session, row.id, stage)
    return found.by if found is not None and found.verdict == "passed" else None


def _decidable(session: Session, actor: Actor, row: ReleaseRow) -> State:
    """The stage in which this person may decide now; `review` when the release waits for nobody."""
    stage = State.APPROVAL if row.state == State.APPROVAL else State.REVIEW
    approval = stage is State.APPROVAL
    actor.require(Permission.APPROVE_RELEASE if approval else Permission.REVIEW_RELEASE)
    _refuse_author(actor, row, "approve" if approval else "review")
    if approval and actor.name == _decided_by(session, row, State.REVIEW):
        raise SamePerson(
            f"{actor.name} reviewed release {row.id} and cannot approve it too.",
            hint="ask a third person who may approve releases",
        )
    return stage


def _refuse_author(actor: Actor, row: ReleaseRow, what: str) -> None:
    if actor.name in (row.author, row.trained_by):
        did = "is the author of" if actor.name == row.author else "trained the model of"
        raise OwnRelease(
            f"{actor.name} {did} release {row.id} and cannot {what} it.",
            hint="ask another person who may",
        )


def need_reason(reason: str, message: str, hint: str) -> None:
    if not reason.strip():
        raise ReasonMissing(message, hint=hint)


def _decide(
    session: Session, actor: Actor, row: ReleaseRow, stage: State, action: Action, text: str
) -> None:
    waiting_us = last_finish_us(session, row)
    move(session, row, action, actor.name, comment=text)
    begin_stage(session, row.id, stage, waiting_us=waiting_us, by=actor.name)
    record = stage_row(session, row.id, stage)
    done = "approved" if action is Action.APPROVE else "rejected"
    record.verdict = "passed" if action is Action.APPROVE else "failed"
    record.rule, record.limit = _RULES[stage]
    record.measured = f"{done} by {actor.name}"
    record.evidence = {"author": row.author, "decided by": actor.name, "comment": text}
    record.by, record.finished_us = actor.name, now_us()
