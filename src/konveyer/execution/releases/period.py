"""Lead times of the releases that ended in a period."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.core.clock import BadInstant, now_us, parse_instant
from konveyer.execution.releases.lead_time import LeadTimes, lead_times
from konveyer.execution.releases.records import with_stages
from konveyer.execution.releases.tables import ReleaseRow
from konveyer.feature_store.definitions.duration import duration_us, parse_duration


def lead_times_since(
    session: Session, since: str, *, application: str | None = None, goal_days: float
) -> LeadTimes:
    """From `since`, a duration such as `90d` or an instant, until now."""
    until_us = now_us()
    since_us = start_of(since, until_us)
    query = select(ReleaseRow).where(ReleaseRow.ended_us >= since_us)
    if application is not None:
        query = query.where(ReleaseRow.application == application)
    releases = with_stages(session, session.scalars(query).all())
    return lead_times(releases, since_us=since_us, until_us=until_us, goal_days=goal_days)


def start_of(since: str, until_us: int) -> int:
    """The instant that `since` means.

    >>> start_of("1d", 86_400_000_001), start_of("1970-01-01T00:00:02Z", 5)
    (1, 2000000)
    """
    if since[:1].isdigit() and since[-1:] in "smhd" and since[:-1].isdigit():
        return until_us - duration_us(parse_duration(since, where="--since"))
    try:
        return parse_instant(since)
    except BadInstant as error:
        raise BadInstant(
            f"'{since}' is neither a duration nor a time.",
            hint="write a duration such as 90d or 36h, or a time such as 2026-01-01T00:00:00Z",
        ) from error
