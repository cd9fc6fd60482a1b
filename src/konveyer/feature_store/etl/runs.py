"""The record of ETL: each view in each run, and which table version is the readable one."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.core.errors import Conflict
from konveyer.feature_store.etl.tables import EtlRunRow, ProfileRow
from konveyer.feature_store.offline.table_version import TableRef

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"


class ViewNotComputed(Conflict):
    """ETL has not yet succeeded for this version of the view."""

    code = "feature_view_not_computed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a running view is at, and how far: parts `done` of so many."""

    name: str
    done: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EtlRun:
    """One view in one run; `rows` were written offline, `published` entities went online.

    `last_push` is the number of the last push that it took up, where the view reads pushed rows.
    `stage` is there while it is running, a moment after it began. `table_version` of a run that did
    not succeed is one of which records may be online. One that succeeded has an `error` where what
    was pushed meanwhile did not come online.
    """

    run_id: str
    view: str
    version: str
    person: str
    status: str
    as_of_us: int
    started_us: int
    finished_us: int | None
    rows: int | None
    published: int | None
    table_version: int | None
    last_push: int | None
    stage: Stage | None
    error: dict[str, Any] | None

    @property
    def duration_s(self) -> float | None:
        return None if self.finished_us is None else (self.finished_us - self.started_us) / 1e6


def begin(
    session: Session,
    run_id: str,
    view: str,
    version: str,
    *,
    person: str,
    as_of_us: int,
    last_push: int | None = None,
) -> int | None:
    """Note that a view is being computed; a resumed run finds its own row.

    Gives the last push that the run takes up: `last_push`, or what it was when the run began.
    """
    row = session.get(EtlRunRow, (run_id, view, version))
    if row is None:
        row = EtlRunRow(
            run_id=run_id,
            view=view,
            version=version,
            person=person,
            status=RUNNING,
            as_of_us=as_of_us,
            started_us=now_us(),
            last_push=last_push,
        )
        session.add(row)
        session.flush()
    return row.last_push


def note_stage(session: Session, run_id: str, view: str, version: str, stage: Stage) -> None:
    """Note how far a running view has come."""
    session.get_one(EtlRunRow, (run_id, view, version)).stage = asdict(stage)


def begun(session: Session, run_id: str, view: str, version: str, step: str) -> int:
    """Note that a process begins a step of a running view; how many have begun it by now."""
    row = session.get_one(EtlRunRow, (run_id, view, version))
    times: int = (row.begun or {}).get(step, 0) + 1
    row.begun = {step: times}
    return times


def told_to_end(session: Session) -> None:
    """Note that a process ends because it was told to: no step that is under way has ended it."""
    running = update(EtlRunRow).where(EtlRunRow.status == RUNNING)
    session.execute(running.values(begun=None))


def publishing(session: Session, run_id: str, ref: TableRef, *, as_of_us: int) -> None:
    """Note that from now on records of `ref` may be online, whatever becomes of the run.

    Of a run that puts one readable table after another the first stays noted.
    """
    row = session.get_one(EtlRunRow, (run_id, ref.view, ref.version))
    if row.table_version is None:
        row.table_version, row.buckets, row.as_of_us = ref.table_version, ref.buckets, as_of_us


@dataclass(frozen=True, slots=True, kw_only=True)
class PutTable:
    """A table version of which `run` put records online, or may have."""

    ref: TableRef
    run: EtlRun


def unfinished_tables(session: Session) -> dict[tuple[str, str], list[PutTable]]:
    """By view and version what publications that failed, or are under way, may have put online.

    Only those for which no later one has made up.
    """
    query = (
        select(EtlRunRow)
        .where(EtlRunRow.status != SUCCEEDED, EtlRunRow.table_version.is_not(None))
        .order_by(EtlRunRow.started_us)
    )
    unfinished: dict[tuple[str, str], list[PutTable]] = {}
    for row in session.scalars(query):
        one = PutTable(ref=_ref(row), run=_run(row))
        unfinished.setdefault((row.view, row.version), []).append(one)
    return unfinished


def readable_tables(session: Session, run_id: str, view: str, version: str) -> list[PutTable]:
    """What was readable since the run noted such a table itself; at least what is readable now.

    Nothing where no run has succeeded yet.
    """
    query = (
        select(EtlRunRow)
        .where(EtlRunRow.view == view, EtlRunRow.version == version)
        .where(EtlRunRow.status == SUCCEEDED, EtlRunRow.table_version.is_not(None))
        .order_by(EtlRunRow.finished_us)
    )
    rows = session.scalars(query).all()
    noted = session.get_one(EtlRunRow, (run_id, view, version)).table_version
    since = max((n for n, row in enumerate(rows) if row.table_version == noted), default=-1)
    return [PutTable(ref=_ref(row), run=_run(row)) for row in rows[since:]]


def succeed(
    session: Session,
    run_id: str,
    ref: TableRef,
    *,
    rows: int,
    published: int,
    undone: Iterable[PutTable] = (),
    made_by: EtlRun | None = None,
) -> None:
    """Make `ref` the readable version of its view; nothing is left online of those `undone`.

    `made_by` is the run that wrote `ref`, where that is another.
    """
    for one in undone:
        # What was still being put while it was compared may be online after all.
        if one.run.status == FAILED:
            failed = session.get_one(EtlRunRow, (one.run.run_id, ref.view, ref.version))
            failed.table_version, failed.buckets = None, None
    row = session.get_one(EtlRunRow, (run_id, ref.view, ref.version))
    row.status, row.finished_us, row.error, row.stage = SUCCEEDED, now_us(), None, None
    row.rows, row.published = rows, published
    row.table_version, row.buckets = ref.table_version, ref.buckets
    if made_by is not None:
        row.as_of_us, row.last_push = made_by.as_of_us, made_by.last_push


def fail(session: Session, run_id: str, view: str, version: str, error: dict[str, Any]) -> None:
    """Note why a view failed; what was readable before stays readable.

    So does a table that the run has made readable: what failed came after it. But the first one of
    a view does not, for a push that the view cannot take would keep all others away.
    """
    row = session.get_one(EtlRunRow, (run_id, view, version))
    row.error = error
    if row.status != SUCCEEDED or not _readable_beside(session, row):
        row.status, row.finished_us, row.stage = FAILED, now_us(), None


def _readable_beside(session: Session, row: EtlRunRow) -> bool:
    """Whether another run has made a table of the same version of the view readable."""
    others = select(EtlRunRow.run_id).where(
        EtlRunRow.view == row.view,
        EtlRunRow.version == row.version,
        EtlRunRow.run_id != row.run_id,
        EtlRunRow.status == SUCCEEDED,
        EtlRunRow.table_version.is_not(None),
    )
    return session.scalars(others).first() is not None


def has_succeeded(session: Session, run_id: str, view: str, version: str) -> bool:
    """Whether this run has made its table of the view readable."""
    return session.get_one(EtlRunRow, (run_id, view, version)).status == SUCCEEDED


def is_computed(session: Session, view: str, version: str) -> bool:
    """Whether a table of this version of the view is readable."""
    runs = select(EtlRunRow.view).where(EtlRunRow.view == view, EtlRunRow.version == version)
    readable = runs.where(EtlRunRow.status == SUCCEEDED, EtlRunRow.table_version.is_not(None))
    return session.scalars(readable).first() is not None


def times_withdrawn(session: Session, view: str, version: str) -> int:
    """How many runs of this version of the view had made a table readable that was withdrawn."""
    withdrawn = (
        select(func.count())
        .select_from(EtlRunRow)
        .where(EtlRunRow.view == view, EtlRunRow.version == version)
        .where(EtlRunRow.status == SUCCEEDED, EtlRunRow.table_version.is_(None))
    )
    return session.scalar(withdrawn) or 0


def readable_table(session: Session, view: str, version: str) -> tuple[TableRef, EtlRun]:
    """The table that the last successful run of this version of the view wrote, and that run."""
    row = session.scalars(
        select(EtlRunRow)
        .where(EtlRunRow.view == view, EtlRunRow.version == version)
        .where(EtlRunRow.status == SUCCEEDED)
        .order_by(EtlRunRow.finished_us.desc())
    ).first()
    if row is None or row.table_version is None or row.buckets is None:
        raise not_computed(view)
    return _ref(row), _run(row)


def not_computed(view: str) -> ViewNotComputed:
    return ViewNotComputed(
        f"Feature view '{view}' has no computed values yet.",
        hint=f"run 'konveyer etl run {view}'",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """A table version that was readable from `since_us`, until the next one of its view's."""

    ref: TableRef
    since_us: int


def written_tables(session: Session) -> dict[tuple[str, str], list[WrittenTable]]:
    """By view and version the table versions that were ever readable; the last one is now."""
    query = (
        select(EtlRunRow)
        .where(EtlRunRow.status == SUCCEEDED, EtlRunRow.table_version.is_not(None))
        .order_by(EtlRunRow.finished_us)
    )
    written: dict[tuple[str, str], list[WrittenTable]] = {}
    for row in session.scalars(query):
        one = WrittenTable(ref=_ref(row), since_us=row.finished_us or row.started_us)
        written.setdefault((row.view, row.version), []).append(one)
    return written


def running_views(session: Session) -> set[tuple[str, str]]:
    """The versions of views that are being computed, or were when their worker was killed."""
    query = select(EtlRunRow.view, EtlRunRow.version).where(EtlRunRow.status == RUNNING)
    return {(view, version) for view, version in session.execute(query)}


def rewritten(
    session: Session, run_id: str, run: EtlRun, ref: TableRef, *, person: str, rows: int
) -> None:
    """Make `ref`, made of the table that `run` wrote, the readable version of its view."""
    now = max(now_us(), (run.finished_us or 0) + 1)  # also where another machine's clock is ahead
    session.add(
        EtlRunRow(
            run_id=run_id,
            view=ref.view,
            version=ref.version,
            person=person,
            status=SUCCEEDED,
            as_of_us=run.as_of_us,
            started_us=now,
            finished_us=now,
            rows=rows,
            published=0,
            table_version=ref.table_version,
            buckets=ref.buckets,
            last_push=run.last_push,
        )
    )


def withdraw_tables(session: Session, view: str, version: str) -> None:
    """No table of this version of the view is readable any more, until ETL runs again.

    That a run has succeeded stays on record, without a table.
    """
    session.execute(
        update(EtlRunRow)
        .where(EtlRunRow.view == view, EtlRunRow.version == version)
        .values(table_version=None, buckets=None)
    )


def list_runs(
    session: Session, *, view: str | None = None, version: str | None = None, limit: int = 50
) -> list[EtlRun]:
    """Newest first."""
    query = select(EtlRunRow).order_by(EtlRunRow.started_us.desc()).limit(limit)
    if view is not None:
        query = query.where(EtlRunRow.view == view)
    if version is not None:
        query = query.where(EtlRunRow.version == version)
    return [_run(row) for row in session.scalars(query)]


def runs_of(session: Session, run_id: str) -> list[EtlRun]:
    """The views of one run, in the order in which they started."""
    query = select(EtlRunRow).where(EtlRunRow.run_id == run_id).order_by(EtlRunRow.started_us)
    return [_run(row) for row in session.scalars(query)]


def keep_profiles(
    session: Session,
    run_id: str,
    view: str,
    version: str,
    profiles: dict[str, dict[str, Any]],
) -> None:
    for feature, profile in profiles.items():
        session.merge(
            ProfileRow(run_id=run_id, view=view, version=version, feature=feature, profile=profile)
        )


def profiles_of(
    session: Session, run_id: str, view: str, version: str
) -> dict[str, dict[str, Any]]:
    """By feature."""
    query = (
        select(ProfileRow)
        .where(ProfileRow.run_id == run_id)
        .where(ProfileRow.view == view, ProfileRow.version == version)
    )
    return {row.feature: row.profile for row in session.scalars(query)}


def _ref(row: EtlRunRow) -> TableRef:
    return TableRef(
        view=row.view,
        version=row.version,
        table_version=row.table_version or 0,
        buckets=row.buckets or 1,
    )


def _run(row: EtlRunRow) -> EtlRun:
    return msgspec.convert(row, EtlRun, from_attributes=True)
