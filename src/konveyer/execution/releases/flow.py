"""The conveyor as a durable flow: stages in order, each a step, until review or a failure."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.bundle.store import BundleStore
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.execution.releases.gates.context import GateContext, GateServices
from konveyer.execution.releases.gates.listing import GATES
from konveyer.execution.releases.machine import AUTOMATIC, STAGES, Action, State, next_state
from konveyer.execution.releases.records import (
    begin_stage,
    last_finish_us,
    release_row,
    stage_row,
)
from konveyer.execution.releases.tables import ReleaseRow
from konveyer.execution.releases.verdict import Verdict
from konveyer.pipeline.flow import Flow, Json, Payload, Run, Steps, packed_error

NAME = "release"


class ReleasePayload(msgspec.Struct, frozen=True, kw_only=True):
    """Run `release` from the stage `start` on, for `person`."""

    release: str
    start: str
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseServices:
    """What the flow works with."""

    catalog: Catalog
    bundles: BundleStore
    gates: GateServices


def release_flow(services: ReleaseServices) -> Flow:
    return Flow(NAME, partial(_run, services))


def run_from(state: str, release: str, person: str) -> Run | None:
    """The run that takes a release on from `state`; None when it waits or has ended."""
    if state not in AUTOMATIC:
        return None
    payload = ReleasePayload(release=release, start=state, person=person)
    return Run(flow=NAME, id=f"{release}-{state}", payload=msgspec.to_builtins(payload))


def lost_runs(session: Session) -> list[Run]:
    """The runs of all releases in an automatic stage; starting one that runs is harmless.

    A process that dies between opening a release and starting its run leaves such a one.
    """
    rows = session.scalars(select(ReleaseRow).where(ReleaseRow.state.in_(map(str, AUTOMATIC))))
    runs = (run_from(row.state, row.id, row.author) for row in rows)
    return [run for run in runs if run is not None]


def _run(services: ReleaseServices, steps: Steps, payload: Payload) -> Json:
    order = msgspec.convert(payload, ReleasePayload)
    state = order.start
    for stage in STAGES[STAGES.index(State(order.start)) :]:
        if stage is State.REVIEW:
            break
        try:
            state = steps.step(str(stage), partial(_stage, services, order, stage))
        except KonveyerError as error:
            packed = packed_error(error)
            state = steps.step(f"fail {stage}", partial(_broke, services, order, stage, packed))
        if state == State.FAILED:
            break
    return {"release": order.release, "state": str(state)}


def _stage(services: ReleaseServices, order: ReleasePayload, stage: State) -> str:
    """Run one gate and move the release by its verdict. Run again after a kill, it starts over."""
    with services.catalog.transaction() as session:
        row = release_row(session, order.release)
        if row.state != stage:
            return row.state
        waiting_us = last_finish_us(session, row)
        begin_stage(session, row.id, stage, waiting_us=waiting_us, by="conveyor")
        context = GateContext(services=services.gates, release=row.id)
        digest = row.digest
    try:
        verdict = GATES[stage](context, services.bundles.open(digest))
    except KonveyerError as error:
        verdict = Verdict(
            passed=False,
            rule="the gate could be run",
            measured=error.message,
            limit="no error",
            evidence=packed_error(error),
        )
    return _conclude(services, order, stage, verdict)


def _conclude(
    services: ReleaseServices, order: ReleasePayload, stage: State, verdict: Verdict
) -> str:
    with services.catalog.transaction() as session:
        row = release_row(session, order.release)
        if row.state != stage:
            return row.state
        record = stage_row(session, row.id, stage)
        record.verdict = "passed" if verdict.passed else "failed"
        record.rule, record.measured, record.limit = verdict.rule, verdict.measured, verdict.limit
        record.evidence, record.finished_us = verdict.evidence, now_us()
        action = Action.PASS if verdict.passed else Action.FAIL
        row.state = str(next_state(row.id, stage, action))
        if not verdict.passed:
            row.reason = f"{stage}: {verdict.rule}: {verdict.measured} (limit: {verdict.limit})"
            row.ended_us = now_us()
        if row.state == State.LIVE:
            row.ended_us = now_us()
            _retire_others(session, row)
        audit.record(session, order.person, record.verdict, "release", row.id, stage=str(stage))
        return row.state


def _retire_others(session: Session, row: ReleaseRow) -> None:
    others = select(ReleaseRow).where(
        ReleaseRow.application == row.application,
        ReleaseRow.api_version == row.api_version,
        ReleaseRow.state == State.LIVE,
        ReleaseRow.id != row.id,
    )
    for other in session.scalars(others):
        other.state = str(next_state(other.id, State.LIVE, Action.RETIRE))


def _broke(
    services: ReleaseServices, order: ReleasePayload, stage: State, error: dict[str, Any]
) -> str:
    """A stage that ended in a defect: the release fails with it instead of hanging."""
    verdict = Verdict(
        passed=False,
        rule="the stage could be run",
        measured=str(error["message"]),
        limit="no error",
        evidence=error,
    )
    return _conclude(services, order, stage, verdict)
