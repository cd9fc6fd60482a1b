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
    PRODUCTION = "production"
    LIVE = "live"
    FAILED = "failed"
    REJECTED = "rejected"
    RETIRED = "retired"


class Action(StrEnum):
    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    APPROVE = "approve"
    REJECT = "reject"
    RETIRE = "retire"


STAGES = (
    State.CHECKS,
    State.REVIEW,
    State.FUNCTIONAL,
    State.INTEGRATION,
    State.LOAD,
    State.PRODUCTION,
)
AUTOMATIC = tuple(stage for stage in STAGES if stage is not State.REVIEW)

NEXT: dict[tuple[State, Action], State] = {
    (State.CHECKS, Action.PASS): State.REVIEW,
    (State.CHECKS, Action.FAIL): State.FAILED,
    (State.REVIEW, Action.APPROVE): State.FUNCTIONAL,
    (State.REVIEW, Action.REJECT): State.REJECTED,
    (State.FUNCTIONAL, Action.PASS): State.INTEGRATION,
    (State.FUNCTIONAL, Action.FAIL): State.FAILED,
    (State.INTEGRATION, Action.PASS): State.LOAD,
    (State.INTEGRATION, Action.FAIL): State.FAILED,
    (State.LOAD, Action.PASS): State.PRODUCTION,
    (State.LOAD, Action.FAIL): State.FAILED,
    (State.PRODUCTION, Action.PASS): State.LIVE,
    (State.PRODUCTION, Action.FAIL): State.FAILED,
    (State.LIVE, Action.RETIRE): State.RETIRED,
}


class WrongState(Conflict):
    """The release is not in a state in which this can be done."""

    code = "release_wrong_state"


def next_state(release: str, state: State, action: Action) -> State:
    """The state after `action`.

    >>> next_state("r", State.LOAD, Action.PASS).value
    'production'
    """
    following = NEXT.get((state, action))
    if following is None:
        possible = [possible for (start, possible) in NEXT if start is state]
        raise WrongState(
            f"Release {release} is in '{state}': it cannot {action}.",
            hint=f"possible now: {', '.join(possible) or 'nothing'}",
        )
    return following
