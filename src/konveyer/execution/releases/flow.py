"""The conveyor as a durable flow: stages in order, each a step, until review or a failure."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.catalog.outages import lasting
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.gates.context import GateContext, GateServices
from konveyer.execution.releases.gates.listing import GATES
from konveyer.execution.releases.gates.production import WENT_BACK
from konveyer.execution.releases.live import publish_end, retire_others
from konveyer.execution.releases.machine import (
    AUTOMATIC,
    ENDS,
    HUMAN,
    OPTIONAL,
    STAGES,
    WATCHING,
    Action,
    State,
)
from konveyer.execution.releases.patient import PatientBundles, PatientStorage
from konveyer.execution.releases.records import (
    NOT_REQUIRED,
    Release,
    begin_stage,
    current_live,
    last_finish_us,
    release_row,
    stage_row,
)
from konveyer.execution.releases.tables import ReleaseRow
from konveyer.execution.releases.transitions import move
from konveyer.execution.releases.verdict import Verdict, as_json
from konveyer.pipeline.flow import Flow, Json, Payload, Run, Steps, packed_error

NAME = "release"
# Most of them watch production for hours, and do nothing meanwhile.
_AT_ONCE = 16
# Who is on record for what no person decided.
_CONVEYOR = "conveyor"
# A stage in which the catalog cannot be used so often fails; one that watches for hours goes on.
_TRIES = 3
# So long a stage waits for shared storage that does not answer. One that watches waits longer:
# nodes could not be told to go back either.
_STORAGE_AWAY_S, _WATCHING_AWAY_S = 600.0, 6 * 3600.0


class ReleasePayload(msgspec.Struct, frozen=True, kw_only=True):
    """Run `release` from the stage `start` on."""

    release: str
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseServices:
    """What the flow works with."""

    catalog: Catalog
    gates: GateServices


def release_flow(services: ReleaseServices) -> Flow:
    return Flow(NAME, partial(_run, services), at_once=_AT_ONCE)


def run_from(state: str, release: str, attempt: int = 1) -> Run | None:
    """The run that takes a release on from `state`; None when it is in review or has ended.

    Each `attempt` is a run of its own.
    """
    if state not in (*AUTOMATIC, State.APPROVAL):
        return None
    payload = ReleasePayload(release=release, start=state)
    again = "" if attempt == 1 else f"-{attempt}"
    return Run(flow=NAME, id=f"{release}-{state}{again}", payload=msgspec.to_builtins(payload))


def goes_on(release: Release) -> bool:
    """Whether it will come further without any person."""
    state = release.state
    return state in AUTOMATIC or (state == State.APPROVAL and state not in release.required)


def lost_runs(session: Session) -> list[Run]:
    """The runs of all releases in an automatic stage; starting one that runs is harmless.

    A process that dies between opening a release and starting its run leaves such a one.
    """
    going = [str(stage) for stage in (*AUTOMATIC, State.APPROVAL)]
    rows = session.scalars(select(ReleaseRow).where(ReleaseRow.state.in_(going)))
    moving = (row for row in rows if row.state != State.APPROVAL or row.state not in row.required)
    runs = (run_from(row.state, row.id, row.attempt) for row in moving)
    return [run for run in runs if run is not None]


def _run(services: ReleaseServices, steps: Steps, payload: Payload) -> Json:
    order = msgspec.convert(payload, ReleasePayload)
    stage = State(order.start)
    while stage in STAGES and stage is not State.REVIEW:
        try:
            work = partial(_stage, services, order, stage)
            tries = None if stage in WATCHING else _TRIES
            state = steps.step(str(stage), partial(lasting, services.catalog, work, tries=tries))
        except KonveyerError as error:
            packed = packed_error(error)
            fail = partial(_broke, services, order, stage, packed)
            state = steps.step(f"fail {stage}", partial(lasting, services.catalog, fail))
        if state == stage:
            break
        stage = State(state)
    return {"release": order.release, "state": str(stage)}


def _stage(services: ReleaseServices, order: ReleasePayload, stage: State) -> str:
    """Run one gate and move the release by its verdict; the state it is in then.

    Run again after a kill, it starts over. A stage that is not required is passed over, one that
    waits for a person left as it is.
    """
    with services.catalog.transaction() as session:
        row = release_row(session, order.release)
        if row.state != stage:
            return row.state
        if stage in OPTIONAL and stage not in row.required:
            return _skip(session, row, stage, "neither the model nor the workspace asks for it")
        if stage in HUMAN:
            return row.state
        _begin(session, row, stage)
        context = GateContext(services=_patient(services.gates, stage), release=row.id)
        digest = row.digest
    try:
        verdict = GATES[stage](context, context.services.bundles.open(digest))
    except KonveyerError as error:
        verdict = Verdict(
            passed=False,
            rule="the gate could be run",
            measured=error.message,
            limit="no error",
            evidence=packed_error(error),
        )
    return _conclude(services, order, stage, verdict)


def _patient(gates: GateServices, stage: State) -> GateServices:
    """The same, with storage that may be away for a while."""
    away_s = _WATCHING_AWAY_S if stage in WATCHING else _STORAGE_AWAY_S
    return replace(
        gates,
        storage=PatientStorage(gates.storage, away_s),
        bundles=PatientBundles(gates.bundles, away_s),
    )


def _begin(session: Session, row: ReleaseRow, stage: State) -> None:
    waiting_us = last_finish_us(session, row)
    begin_stage(session, row.id, stage, waiting_us=waiting_us, by=_CONVEYOR)


def _skip(session: Session, row: ReleaseRow, stage: State, why: str) -> str:
    begin_stage(session, row.id, stage, waiting_us=now_us(), by=_CONVEYOR)
    record = stage_row(session, row.id, stage)
    record.verdict = NOT_REQUIRED
    record.waiting_us = record.finished_us = record.started_us
    record.rule, record.measured = "only where it is asked for", why
    return move(session, row, Action.SKIP, _CONVEYOR)


def _conclude(
    services: ReleaseServices, order: ReleasePayload, stage: State, verdict: Verdict
) -> str:
    with services.catalog.transaction() as session:
        row = release_row(session, order.release)
        if row.state != stage:
            return row.state
        if verdict.needless:
            return _skip(session, row, stage, verdict.measured)
        if stage is State.PRODUCTION and verdict.passed and not _is_live(session, row):
            verdict = replace(verdict, passed=False, measured=WENT_BACK)
        _begin(session, row, stage)  # it may have failed before that
        record = stage_row(session, row.id, stage)
        record.verdict = "passed" if verdict.passed else "failed"
        record.rule, record.measured, record.limit = verdict.rule, verdict.measured, verdict.limit
        # A stage that ends in an error had told what it saw before.
        record.evidence = {**record.evidence, **as_json(verdict.evidence)}
        record.finished_us = now_us()
        following = move(session, row, Action.PASS if verdict.passed else Action.FAIL, _CONVEYOR)
        if not verdict.passed:
            row.reason = f"{stage}: {verdict.rule}: {verdict.measured} (limit: {verdict.limit})"
        if following is State.LIVE:
            retire_others(session, row, _CONVEYOR)
    if stage in WATCHING or following in ENDS:
        publish_end(services.catalog, services.gates.storage)
    return following


def _is_live(session: Session, row: ReleaseRow) -> bool:
    live = current_live(session, PROD, row.application, row.api_version)
    return live is not None and live.release_id == row.id


def _broke(
    services: ReleaseServices, order: ReleasePayload, stage: State, error: dict[str, Any]
) -> str:
    """A stage that ended in a defect: the release fails with it instead of hanging."""
    verdict = Verdict(
        passed=False,
        rule="the stage could be run",
        measured=str(error["message"]).splitlines()[0],
        limit="no error",
        evidence=error,
    )
    return _conclude(services, order, stage, verdict)
