"""The record of batch scoring: each period of each run."""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.execution.batch.order import OF_A_TABLE, BatchOrder, Period
from konveyer.execution.batch.tables import BatchRunRow

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One period of a run; of one that is under way `rows` of `rows_asked` are scored."""

    run_id: str
    period: str
    application: str
    api_version: int
    release: str
    digest: str
    person: str
    status: str
    at_us: int
    started_us: int
    finished_us: int | None
    rows_asked: int | None
    rows: int | None
    table_version: int | None
    error: dict[str, Any] | None

    @property
    def duration_s(self) -> float | None:
        return None if self.finished_us is None else (self.finished_us - self.started_us) / 1e6


def begin(session: Session, order: BatchOrder, period: Period) -> None:
    """Note that a period is being scored; a resumed run finds its own row."""
    row = session.get(BatchRunRow, (order.run_id, period.name))
    if row is None:
        session.add(
            BatchRunRow(
                run_id=order.run_id,
                period=period.name,
                application=order.application,
                api_version=order.api_version,
                release=order.release,
                digest=order.digest,
                person=order.person,
                status=RUNNING,
                at_us=period.at_us,
                started_us=now_us(),
            )
        )
        session.flush()


def progressed(session: Session, order: BatchOrder, period: Period, rows: int, asked: int) -> None:
    row = session.get_one(BatchRunRow, (order.run_id, period.name))
    row.rows, row.rows_asked = rows, asked


def succeed(session: Session, order: BatchOrder, period: Period, *, table_version: int) -> None:
    row = session.get_one(BatchRunRow, (order.run_id, period.name))
    row.status, row.finished_us, row.error = SUCCEEDED, now_us(), None
    row.table_version = table_version


def fail(session: Session, order: BatchOrder, period: Period, error: dict[str, Any]) -> None:
    """Note why a period failed; what an earlier run wrote of it stays."""
    row = session.get_one(BatchRunRow, (order.run_id, period.name))
    row.status, row.finished_us, row.error = FAILED, now_us(), error


def list_batch_runs(
    session: Session, *, application: str | None = None, limit: int = 50
) -> list[BatchRun]:
    """Newest first."""
    query = select(BatchRunRow).order_by(BatchRunRow.started_us.desc()).limit(limit)
    if application is not None:
        query = query.where(BatchRunRow.application == application)
    return [_run(row) for row in session.scalars(query)]


def periods_of(session: Session, run_id: str) -> list[BatchRun]:
    """The periods of one run that began, in order."""
    query = select(BatchRunRow).where(BatchRunRow.run_id == run_id).order_by(BatchRunRow.at_us)
    return [_run(row) for row in session.scalars(query)]


def last_scored_us(session: Session, application: str, api_version: int, now_us: int) -> int | None:
    """The last period until now at which any run, also one that failed, scored every entity."""
    return session.scalar(
        select(func.max(BatchRunRow.at_us))
        .where(BatchRunRow.application == application)
        .where(BatchRunRow.api_version == api_version)
        .where(BatchRunRow.at_us <= now_us)
        .where(BatchRunRow.period.not_like(f"{OF_A_TABLE}%"))
    )


def _run(row: BatchRunRow) -> BatchRun:
    return msgspec.convert(row, BatchRun, from_attributes=True)
