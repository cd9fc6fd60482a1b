"""What releases need of the feature store, for its upkeep to leave alone."""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.bundle.manifest import TRAINING
from konveyer.bundle.store import BundleStore
from konveyer.execution.releases.live import PROD
from konveyer.execution.releases.machine import STAGES, State
from konveyer.execution.releases.records import live_versions
from konveyer.execution.releases.tables import LiveVersionRow, ReleaseRow
from konveyer.feature_store.datamart.manifest import TrainingSetManifest
from konveyer.feature_store.etl.pins import Pin

KEPT_FOR_ROLLBACK = 3


def release_pins(session: Session, bundles: BundleStore) -> Sequence[Pin]:
    """One for each release that is live, on its way, served by some environment, or rolled back to.

    Of what production served before, that is the last `KEPT_FOR_ROLLBACK` of each version.

    Raises when a bundle cannot be read: what it needs is then not known.
    """
    return [_pin(row, bundles) for row in _in_use(session)]


class HeldViews:
    """The versions of views that the releases of `release_pins` read. Opens each bundle once."""

    def __init__(self, bundles: BundleStore) -> None:
        self._bundles = bundles
        self._views: dict[str, tuple[tuple[str, str], ...]] = {}

    def __call__(self, session: Session) -> Iterable[tuple[str, str]]:
        for row in _in_use(session):
            if row.digest not in self._views:
                self._views[row.digest] = _pin(row, self._bundles).views
            yield from self._views[row.digest]


def _in_use(session: Session) -> list[ReleaseRow]:
    needed = {live.release for live in live_versions(session)} | _kept_for_rollback(session)
    under_way = [str(state) for state in (*STAGES, State.LIVE)]
    rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.opened_us))
    return [row for row in rows if row.state in under_way or row.id in needed]


def _kept_for_rollback(session: Session) -> set[str]:
    """The releases of each version that production served last before the live one."""
    served = session.execute(
        select(ReleaseRow.application, ReleaseRow.api_version, ReleaseRow.id)
        .join(LiveVersionRow, LiveVersionRow.release_id == ReleaseRow.id)
        .where(LiveVersionRow.environment == PROD, ReleaseRow.state == State.RETIRED)
        .order_by(LiveVersionRow.id.desc())
    )
    kept: dict[tuple[str, int], dict[str, None]] = {}
    for application, api_version, release in served:
        newest = kept.setdefault((application, api_version), {})
        if len(newest) < KEPT_FOR_ROLLBACK:
            newest[release] = None
    return {release for newest in kept.values() for release in newest}


def _pin(row: ReleaseRow, bundles: BundleStore) -> Pin:
    bundle = bundles.open(row.digest)
    training = msgspec.json.decode((bundle.path / TRAINING).read_bytes(), type=TrainingSetManifest)
    return Pin(
        holder=f"release {row.id} ({row.application}/v{row.api_version}, {row.state})",
        training_set=training.id,
        tables=training.tables,
        views=tuple((view.name, view.version) for view in bundle.manifest.service.views),
    )
