"""Which features are used, by whom and where."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.registry.tables import FeatureUsageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureUse:
    """What used which features of a view, and who did that."""

    features: tuple[str, ...]
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


def uses_of_view(session: Session, view: str, *, limit: int = 20) -> list[FeatureUse]:
    """Newest first; a training set or a release is one use, of all its features."""
    what = (
        FeatureUsageRow.used_in,
        FeatureUsageRow.subject,
        FeatureUsageRow.person,
        FeatureUsageRow.at_us,
    )
    newest = (
        select(*what)
        .where(FeatureUsageRow.view == view)
        .group_by(*what)
        .order_by(func.max(FeatureUsageRow.id).desc())
        .limit(limit)
    )
    uses: dict[tuple[str, str, str, int], list[str]] = {
        (use.used_in, use.subject, use.person, use.at_us): [] for use in session.execute(newest)
    }
    rows = (
        select(FeatureUsageRow)
        .where(FeatureUsageRow.view == view)
        .where(FeatureUsageRow.subject.in_({subject for _, subject, _, _ in uses}))
        .order_by(FeatureUsageRow.id)
    )
    for row in session.scalars(rows):
        use = (row.used_in, row.subject, row.person, row.at_us)
        if use in uses:
            uses[use].append(row.feature)
    return [
        FeatureUse(
            features=tuple(features), used_in=used_in, subject=subject, person=person, at_us=at_us
        )
        for (used_in, subject, person, at_us), features in uses.items()
    ]


def popularity(session: Session) -> dict[tuple[str, str], int]:
    """How often each (view, feature) was used."""
    query = select(FeatureUsageRow.view, FeatureUsageRow.feature, func.count()).group_by(
        FeatureUsageRow.view, FeatureUsageRow.feature
    )
    return {(view, feature): uses for view, feature, uses in session.execute(query)}
