"""Which features are used, by whom and where."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.registry.tables import FeatureUsageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureUse:
    """A feature, what used it, and who did that."""

    feature: str
    used_in: str
    subject: str
    person: str
    at_us: int


def record_usage(
    session: Session, service: ResolvedService, *, used_in: str, subject: str, person: str
) -> None:
    """Note that every feature of `service` was used in the `used_in` named `subject`."""
    at_us = now_us()
    session.add_all(
        FeatureUsageRow(
            view=feature.view,
            feature=feature.feature,
            used_in=used_in,
            subject=subject,
            person=person,
            at_us=at_us,
        )
        for feature in service.features
    )


def uses_of_view(session: Session, view: str, *, limit: int = 100) -> list[FeatureUse]:
    """Newest first."""
    query = (
        select(FeatureUsageRow)
        .where(FeatureUsageRow.view == view)
        .order_by(FeatureUsageRow.id.desc())
        .limit(limit)
    )
    return [
        FeatureUse(
            feature=row.feature,
            used_in=row.used_in,
            subject=row.subject,
            person=row.person,
            at_us=row.at_us,
        )
        for row in session.scalars(query)
    ]


def popularity(session: Session) -> dict[tuple[str, str], int]:
    """How often each (view, feature) was used."""
    query = select(FeatureUsageRow.view, FeatureUsageRow.feature, func.count()).group_by(
        FeatureUsageRow.view, FeatureUsageRow.feature
    )
    return {(view, feature): uses for view, feature, uses in session.execute(query)}
