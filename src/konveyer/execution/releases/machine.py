"""The states of a release and what moves it from one to the next: one table."""

from enum import StrEnum

from konveyer.core.errors import Conflict


class State(StrEnum):
    """A release is in the stage that is under way or waits, or at one of its ends."""

    CHECKS = "checks"
    REVIEW = "review"
    FUNCTIONAL = "functional"
    INTEGRATION = "integration"
    LOAD = "load"
    REPLAY = "replay"
    SHADOW = "shadow"
    APPROVAL = "approval"
    CANARY = "canary"
    PRODUCTION = "production"
    LIVE = "live"
    FAILED = "failed"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    ROLLED_BACK = "rolled-back"
    RETIRED = "retired"


class Action(StrEnum):
    """What is done to a release. `SKIP` passes a stage that this release does not need."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    SKIP = "skip"
    APPROVE = "approve"
    REJECT = "reject"
    WAIVE = "waive"
    RERUN = "run again"
    WITHDRAW = "withdraw"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    RETIRE = "retire"
    RESTORE = "restore"


STAGES = (
    State.CHECKS,
    State.REVIEW,
    State.FUNCTIONAL,
    State.INTEGRATION,
    State.LOAD,
    State.REPLAY,
    State.SHADOW,
    State.APPROVAL,
    State.CANARY,
    State.PRODUCTION,
)
# These wait for a person; the others run by themselves.
HUMAN = (State.REVIEW, State.APPROVAL)
# These watch production's own requests: nobody works meanwhile.
WATCHING = (State.SHADOW, State.CANARY)
# These are there for the releases that need them.
OPTIONAL = (State.REPLAY, State.SHADOW, State.APPROVAL, State.CANARY)
AUTOMATIC = tuple(stage for stage in STAGES if stage not in HUMAN)
# Nothing serves a release that came to one of these.
ENDS = (State.FAILED, State.REJECTED, State.WITHDRAWN, State.ROLLED_BACK)

# What a person asks for; the others follow from what gates measure and other releases do.
ASKED = (
    Action.APPROVE,
    Action.REJECT,
    Action.WAIVE,
    Action.RERUN,
    Action.WITHDRAW,
    Action.PROMOTE,
    Action.ROLL_BACK,
)
# A release in `failed` is waived, and run again, from the stage that it failed in.
REVIVING = (Action.WAIVE, Action.RERUN)
NEXT: dict[tuple[State, Action], State] = {
    (State.CHECKS, Action.PASS): State.REVIEW,
    (State.CHECKS, Action.FAIL): State.FAILED,
    (State.CHECKS, Action.WAIVE): State.REVIEW,
    (State.CHECKS, Action.RERUN): State.CHECKS,
    (State.CHECKS, Action.WITHDRAW): State.WITHDRAWN,
    (State.REVIEW, Action.APPROVE): State.FUNCTIONAL,
    (State.REVIEW, Action.REJECT): State.REJECTED,
    (State.REVIEW, Action.WITHDRAW): State.WITHDRAWN,
    (State.FUNCTIONAL, Action.PASS): State.INTEGRATION,
    (State.FUNCTIONAL, Action.FAIL): State.FAILED,
    (State.FUNCTIONAL, Action.WAIVE): State.INTEGRATION,
    (State.FUNCTIONAL, Action.RERUN): State.FUNCTIONAL,
    (State.FUNCTIONAL, Action.WITHDRAW): State.WITHDRAWN,
    (State.INTEGRATION, Action.PASS): State.LOAD,
    (State.INTEGRATION, Action.FAIL): State.FAILED,
    (State.INTEGRATION, Action.WAIVE): State.LOAD,
    (State.INTEGRATION, Action.RERUN): State.INTEGRATION,
    (State.INTEGRATION, Action.WITHDRAW): State.WITHDRAWN,
    (State.LOAD, Action.PASS): State.REPLAY,
    (State.LOAD, Action.FAIL): State.FAILED,
    (State.LOAD, Action.WAIVE): State.REPLAY,
    (State.LOAD, Action.RERUN): State.LOAD,
    (State.LOAD, Action.WITHDRAW): State.WITHDRAWN,
    (State.REPLAY, Action.PASS): State.SHADOW,
    (State.REPLAY, Action.SKIP): State.SHADOW,
    (State.REPLAY, Action.FAIL): State.FAILED,
    (State.REPLAY, Action.WAIVE): State.SHADOW,
    (State.REPLAY, Action.RERUN): State.REPLAY,
    (State.REPLAY, Action.WITHDRAW): State.WITHDRAWN,
    (State.SHADOW, Action.PASS): State.APPROVAL,
    (State.SHADOW, Action.SKIP): State.APPROVAL,
    (State.SHADOW, Action.FAIL): State.FAILED,
    (State.SHADOW, Action.WAIVE): State.APPROVAL,
    (State.SHADOW, Action.RERUN): State.SHADOW,
    (State.SHADOW, Action.WITHDRAW): State.WITHDRAWN,
    (State.APPROVAL, Action.APPROVE): State.CANARY,
    (State.APPROVAL, Action.SKIP): State.CANARY,
    (State.APPROVAL, Action.REJECT): State.REJECTED,
    (State.APPROVAL, Action.WITHDRAW): State.WITHDRAWN,
    (State.CANARY, Action.PASS): State.PRODUCTION,
    (State.CANARY, Action.SKIP): State.PRODUCTION,
    (State.CANARY, Action.PROMOTE): State.PRODUCTION,
    (State.CANARY, Action.FAIL): State.ROLLED_BACK,
    (State.CANARY, Action.ROLL_BACK): State.ROLLED_BACK,
    (State.CANARY, Action.WITHDRAW): State.WITHDRAWN,
    (State.PRODUCTION, Action.PASS): State.LIVE,
    (State.PRODUCTION, Action.FAIL): State.FAILED,
    (State.PRODUCTION, Action.ROLL_BACK): State.ROLLED_BACK,
    (State.LIVE, Action.RETIRE): State.RETIRED,
    (State.LIVE, Action.ROLL_BACK): State.ROLLED_BACK,
    (State.RETIRED, Action.RESTORE): State.LIVE,
    (State.ROLLED_BACK, Action.RESTORE): State.LIVE,
}


class WrongState(Conflict):
    """The release is not in a state in which this can be done."""

    code = "release_wrong_state"


def next_state(
    release: str, state: State, action: Action, *, failed_in: State | None = None
) -> State:
    """The state after `action`; a release that has failed did so in the stage `failed_in`.

    >>> next_state("r", State.CANARY, Action.PROMOTE).value
    'production'
    """
    following = NEXT.get((state, action))
    if following is None:
        start, revives = (state, False) if failed_in is None else (failed_in, True)
        possible = [
            one for at, one in NEXT if at is start and one in ASKED and (one in REVIVING) is revives
        ]
        where = f"is in '{state}'" if failed_in is None else f"has failed in '{failed_in}'"
        raise WrongState(
            f"Release {release} {where}: to {action} it is not possible.",
            hint=f"possible now: {', '.join(possible) or 'nothing'}",
        )
    return following
