"""Reading and writing releases in the catalog."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.access.api_keys import published_keys
from konveyer.bundle.store import Bundle
from konveyer.core.clock import now_us
from konveyer.core.errors import NotFound, did_you_mean
from konveyer.execution.releases.machine import HUMAN, STAGES, WATCHING, State
from konveyer.execution.releases.sides import Side, sides_of
from konveyer.execution.releases.tables import LiveVersionRow, ReleaseRow, StageRow
from konveyer.execution.serving.desired import ApiKey, Desired, DesiredVersion

# The verdict of a stage that was passed over.
NOT_REQUIRED = "not required"


class ReleaseNotFound(NotFound):
    code = "release_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """A stage with its evidence, and how long it waited and worked."""

    stage: str
    verdict: str
    rule: str
    measured: str
    limit: str
    evidence: dict[str, Any]
    by: str
    waited_s: float
    worked_s: float
    started_us: int
    finished_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release and the stages it has been through, in order.

    `waiting_s` is how long it has waited by now for the stage of its `state` to begin: for a
    person, or for its turn.
    """

    id: str
    application: str
    api_version: int
    digest: str
    author: str
    state: str
    reason: str | None
    required: list[str]
    attempt: int
    opened_us: int
    ended_us: int | None
    waiting_s: float
    stages: list[StageRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveVersion:
    """What an environment serves at one URL; `release` is empty for what its author tries."""

    environment: str
    application: str
    api_version: int
    digest: str
    release: str
    since_us: int


def release_row(session: Session, release: str) -> ReleaseRow:
    row = session.get(ReleaseRow, release)
    if row is None:
        known = session.scalars(select(ReleaseRow.id))
        raise ReleaseNotFound(
            f"There is no release '{release}'.",
            hint=did_you_mean(release, known, otherwise="konveyer release list"),
        )
    return row


def load_release(session: Session, release: str) -> Release:
    return with_stages(session, [release_row(session, release)])[0]


def list_releases(
    session: Session, *, application: str | None = None, limit: int = 50
) -> list[Release]:
    """Newest first."""
    query = select(ReleaseRow).order_by(ReleaseRow.opened_us.desc()).limit(limit)
    if application is not None:
        query = query.where(ReleaseRow.application == application)
    return with_stages(session, session.scalars(query).all())


def count_releases(session: Session, *, application: str | None = None) -> int:
    """How many releases `list_releases` would give without a limit."""
    query = select(func.count()).select_from(ReleaseRow)
    if application is not None:
        query = query.where(ReleaseRow.application == application)
    return session.scalar(query) or 0


def submitted_applications(session: Session) -> list[str]:
    """The applications that have a release, whatever became of it."""
    return sorted(session.scalars(select(ReleaseRow.application).distinct()))


def begin_stage(session: Session, release: str, stage: State, *, waiting_us: int, by: str) -> None:
    """Note that a stage started; a stage that starts again after a kill keeps its row."""
    if session.get(StageRow, (release, stage)) is None:
        session.add(
            StageRow(
                release_id=release,
                stage=str(stage),
                verdict="running",
                rule="",
                measured="",
                limit="",
                evidence={},
                by=by,
                waiting_us=waiting_us,
                started_us=now_us(),
            )
        )
        session.flush()


def stage_row(session: Session, release: str, stage: State) -> StageRow:
    return session.get_one(StageRow, (release, stage))


def stage_row_or_none(session: Session, release: str, stage: State) -> StageRow | None:
    return session.get(StageRow, (release, stage))


def last_finish_us(session: Session, row: ReleaseRow) -> int:
    """When the stage before the current one ended: since then the release waits.

    One that was passed over took none of that time.
    """
    stages = session.scalars(select(StageRow).where(StageRow.release_id == row.id))
    return _last_finish_us(row, stages)


def _last_finish_us(row: ReleaseRow, stages: Iterable[StageRow]) -> int:
    finished = [
        stage.finished_us
        for stage in stages
        if stage.finished_us is not None and stage.verdict != NOT_REQUIRED
    ]
    return max(finished, default=row.opened_us)


def set_live(session: Session, environment: str, row: ReleaseRow) -> bool:
    """Let `environment` serve the release; False when it does already."""
    current = current_live(session, environment, row.application, row.api_version)
    if current is not None and current.release_id == row.id:
        return False
    _replace(session, current, _serving(environment, row))
    return True


def set_tried(session: Session, environment: str, bundle: Bundle) -> None:
    """Let `environment` serve a bundle that is on no release; harmless when it does already."""
    manifest = bundle.manifest
    current = current_live(session, environment, manifest.application, manifest.api_version)
    if current is not None and current.digest == bundle.digest:
        return
    tried = LiveVersionRow(
        environment=environment,
        application=manifest.application,
        api_version=manifest.api_version,
        digest=bundle.digest,
        since_us=now_us(),
    )
    _replace(session, current, tried)


def withdraw_live(session: Session, environment: str, row: ReleaseRow) -> None:
    """Serve the release that is live instead of `row`, or nothing; harmless when that is so."""
    current = current_live(session, environment, row.application, row.api_version)
    if current is None or current.release_id != row.id:
        return
    live = live_beside(session, row)
    _replace(session, current, None if live is None else _serving(environment, live))


def live_beside(session: Session, row: ReleaseRow) -> ReleaseRow | None:
    """The release, other than `row`, that is live at the same URL."""
    return session.scalars(
        select(ReleaseRow)
        .where(ReleaseRow.application == row.application)
        .where(ReleaseRow.api_version == row.api_version)
        .where(ReleaseRow.state == State.LIVE, ReleaseRow.id != row.id)
    ).first()


def _serving(environment: str, row: ReleaseRow) -> LiveVersionRow:
    return LiveVersionRow(
        environment=environment,
        application=row.application,
        api_version=row.api_version,
        digest=row.digest,
        release_id=row.id,
        since_us=now_us(),
    )


def _replace(
    session: Session, current: LiveVersionRow | None, following: LiveVersionRow | None
) -> None:
    if current is not None:
        current.until_us = now_us()
    if following is not None:
        session.add(following)
    session.flush()


def live_versions(session: Session, environment: str | None = None) -> list[LiveVersion]:
    """What is served now, by environment, application and version."""
    query = select(LiveVersionRow).where(LiveVersionRow.until_us.is_(None))
    if environment is not None:
        query = query.where(LiveVersionRow.environment == environment)
    rows = session.scalars(
        query.order_by(
            LiveVersionRow.environment, LiveVersionRow.application, LiveVersionRow.api_version
        )
    )
    return [_live_version(row) for row in rows]


def settled_versions(session: Session, environment: str) -> list[LiveVersion]:
    """What the environment serves of releases that are live, by application and version.

    One in its production stage is served, and may be taken back: until it is live itself, that is
    the release before it.
    """
    rows = session.scalars(
        select(LiveVersionRow)
        .join(ReleaseRow, ReleaseRow.id == LiveVersionRow.release_id)
        .where(LiveVersionRow.environment == environment, ReleaseRow.state == State.LIVE)
        .order_by(LiveVersionRow.application, LiveVersionRow.api_version, LiveVersionRow.id)
    )
    newest = {(row.application, row.api_version): row for row in rows}
    return [_live_version(row) for row in newest.values()]


def _live_version(row: LiveVersionRow) -> LiveVersion:
    return LiveVersion(
        environment=row.environment,
        application=row.application,
        api_version=row.api_version,
        digest=row.digest,
        release=row.release_id or "",
        since_us=row.since_us,
    )


def desired_of(session: Session, environment: str) -> Desired:
    """The document that nodes of `environment` follow."""
    canaries = sides_of(session, environment, Side.CANARY)
    shadows = sides_of(session, environment, Side.SHADOW)
    return Desired(
        environment=environment,
        versions=tuple(
            DesiredVersion(
                application=live.application,
                api_version=live.api_version,
                digest=live.digest,
                release=live.release,
                since_us=live.since_us,
                canary=next(iter(canaries.get((live.application, live.api_version), ())), None),
                shadows=shadows.get((live.application, live.api_version), ()),
            )
            for live in live_versions(session, environment)
        ),
        keys=tuple(
            ApiKey(
                digest=key.digest,
                name=key.name,
                applications=key.applications,
                rate_per_s=key.rate_per_s,
                expires_us=key.expires_us,
            )
            for key in published_keys(session, environment)
        ),
    )


def current_live(
    session: Session, environment: str, application: str, api_version: int
) -> LiveVersionRow | None:
    return session.scalars(
        select(LiveVersionRow)
        .where(LiveVersionRow.environment == environment)
        .where(LiveVersionRow.application == application)
        .where(LiveVersionRow.api_version == api_version)
        .where(LiveVersionRow.until_us.is_(None))
    ).first()


def was_replaced(session: Session, environment: str, release: str) -> bool:
    """Whether `environment` has served the release, and serves another one since."""
    until_us = session.scalars(
        select(LiveVersionRow.until_us)
        .where(LiveVersionRow.environment == environment)
        .where(LiveVersionRow.release_id == release)
    ).all()
    return bool(until_us) and None not in until_us


def with_stages(session: Session, rows: Sequence[ReleaseRow]) -> list[Release]:
    """Each with its stages in their order, read at once."""
    of_them = StageRow.release_id.in_([row.id for row in rows])
    stages: dict[str, list[StageRow]] = defaultdict(list)
    for stage in session.scalars(select(StageRow).where(of_them)):
        stages[stage.release_id].append(stage)
    order = [str(stage) for stage in STAGES]
    return [
        _release(row, sorted(stages[row.id], key=lambda stage: order.index(stage.stage)))
        for row in rows
    ]


def _release(row: ReleaseRow, stages: Sequence[StageRow]) -> Release:
    waits = row.ended_us is None and row.state not in {stage.stage for stage in stages}
    return Release(
        id=row.id,
        application=row.application,
        api_version=row.api_version,
        digest=row.digest,
        author=row.author,
        state=row.state,
        reason=row.reason,
        required=list(row.required),
        attempt=row.attempt,
        opened_us=row.opened_us,
        ended_us=row.ended_us,
        waiting_s=max(0, now_us() - _last_finish_us(row, stages)) / 1e6 if waits else 0.0,
        stages=[_stage(stage, row.ended_us) for stage in stages],
    )


def _stage(row: StageRow, ended_us: int | None) -> StageRecord:
    """A review waits all the time: nobody knows how long the reviewer worked.

    So does a stage that watches production's own requests. One that was under way when the release
    ended took until then.
    """
    end_us = row.finished_us or ended_us or now_us()
    start_us = end_us if row.stage in (*HUMAN, *WATCHING) else row.started_us
    return StageRecord(
        stage=row.stage,
        verdict=row.verdict,
        rule=row.rule,
        measured=row.measured,
        limit=row.limit,
        evidence=row.evidence,
        by=row.by,
        waited_s=max(0.0, (start_us - row.waiting_us) / 1e6),
        worked_s=max(0.0, (end_us - start_us) / 1e6),
        started_us=row.started_us,
        finished_us=row.finished_us,
    )
