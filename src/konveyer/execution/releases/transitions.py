"""Moving a release by the table, with the audit entry of each move."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.execution.releases.environments import PROD, TEST
from konveyer.execution.releases.machine import (
    ENDS,
    REVIVING,
    STAGES,
    Action,
    State,
    WrongState,
    next_state,
)
from konveyer.execution.releases.records import withdraw_live
from konveyer.execution.releases.sides import end_sides
from konveyer.execution.releases.tables import ReleaseRow, StageRow

_DONE = {
    Action.PASS: "passed",
    Action.FAIL: "failed",
    Action.SKIP: "skipped",
    Action.APPROVE: "approved",
    Action.REJECT: "rejected",
    Action.WAIVE: "waived",
    Action.RERUN: "reran",
    Action.WITHDRAW: "withdrew",
    Action.PROMOTE: "promoted",
    Action.ROLL_BACK: "rolled back",
    Action.RETIRE: "retired",
    Action.RESTORE: "restored",
}


def move(session: Session, row: ReleaseRow, action: Action, by: str, **detail: object) -> State:
    """The release's new state. What ends is not on any side of production any more, and served
    nowhere.
    """
    revives = action in REVIVING
    failed_in = failed_stage(session, row) if revives or row.state == State.FAILED else None
    start = failed_in if revives and failed_in is not None else State(row.state)
    following = next_state(row.id, start, action, failed_in=failed_in)
    row.state = str(following)
    if following not in STAGES or start is State.SHADOW:
        end_sides(session, row.id)
    if following in ENDS:
        for environment in (TEST, PROD):
            withdraw_live(session, environment, row)
    if following not in STAGES:
        row.ended_us = row.ended_us or now_us()
    if revives:
        row.ended_us, row.reason = None, None
    audit.record(
        session, by, _DONE[action], "release", row.id, stage=start, state=following, **detail
    )
    return following


def failed_stage(session: Session, row: ReleaseRow) -> State:
    """Where a failed release failed; raises when it did not."""
    if row.state != State.FAILED:
        raise WrongState(
            f"Release {row.id} is in '{row.state}': no gate of it has failed.",
            hint=f"konveyer release show {row.id}",
        )
    failed = session.scalars(
        select(StageRow)
        .where(StageRow.release_id == row.id, StageRow.verdict == "failed")
        .order_by(StageRow.finished_us.desc())
    ).first()
    return State.FAILED if failed is None else State(failed.stage)
