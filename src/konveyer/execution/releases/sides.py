"""What stands beside the live version in an environment: canaries and shadows."""

from enum import StrEnum

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.execution.releases.tables import ReleaseRow, SideRow
from konveyer.execution.serving.desired import Share


class Side(StrEnum):
    """A canary answers for its share of requests; a shadow sees copies of its share."""

    CANARY = "canary"
    SHADOW = "shadow"


def put_side(
    session: Session, environment: str, row: ReleaseRow, side: Side, *, per_mille: int
) -> None:
    """Give the release its share; repeating it is harmless."""
    found = session.get(SideRow, (environment, row.id, str(side)))
    if found is None:
        session.add(
            SideRow(
                environment=environment,
                release_id=row.id,
                side=str(side),
                application=row.application,
                api_version=row.api_version,
                digest=row.digest,
                per_mille=per_mille,
                since_us=now_us(),
            )
        )
    elif found.per_mille != per_mille:
        found.per_mille, found.since_us = per_mille, now_us()
    session.flush()


def end_sides(session: Session, release: str) -> None:
    """Let the release answer and listen nowhere beside a live version."""
    session.execute(delete(SideRow).where(SideRow.release_id == release))


def sides_of(
    session: Session, environment: str, side: Side
) -> dict[tuple[str, int], tuple[Share, ...]]:
    """The shares of each application's version, oldest first."""
    rows = session.scalars(
        select(SideRow)
        .where(SideRow.environment == environment, SideRow.side == str(side))
        .order_by(SideRow.since_us)
    )
    found: dict[tuple[str, int], tuple[Share, ...]] = {}
    for row in rows:
        route = (row.application, row.api_version)
        share = Share(digest=row.digest, release=row.release_id, per_mille=row.per_mille)
        found[route] = (*found.get(route, ()), share)
    return found
