"""What releases need of the feature store, for its upkeep to leave alone."""

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.bundle.errors import BundleNotFound
from konveyer.bundle.manifest import TRAINING
from konveyer.bundle.store import BundleStore
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.machine import STAGES, State
from konveyer.execution.releases.records import live_versions
from konveyer.execution.releases.tables import LiveVersionRow, ReleaseRow
from konveyer.feature_store.datamart.manifest import TrainingSetManifest
from konveyer.feature_store.etl.pins import Pin

KEPT_FOR_ROLLBACK = 3


def release_pins(
    session: Session, bundles: BundleStore, kept: int = KEPT_FOR_ROLLBACK
) -> Sequence[Pin]:
    """One for each release that is live, on its way, served by some environment, or rolled back to.

    Of what production served before, that is the last `kept` of each version, as far as their
    bundles are there. Raises when another bundle cannot be read: what it needs is then not known.
    """
    held = (_held(row, bundles, is_needed) for row, is_needed in _in_use(session, kept))
    return [pin for pin in held if pin is not None]


class HeldViews:
    """The versions of views that the releases of `release_pins` read. Opens each bundle once."""

    def __init__(self, bundles: BundleStore, kept: int = KEPT_FOR_ROLLBACK) -> None:
        self._bundles, self._kept = bundles, kept
        self._views: dict[str, tuple[tuple[str, str], ...]] = {}

    def __call__(self, session: Session) -> Iterable[tuple[str, str]]:
        for row, is_needed in _in_use(session, self._kept):
            if row.digest not in self._views:
                pin = _held(row, self._bundles, is_needed)
                self._views[row.digest] = () if pin is None else pin.views
            yield from self._views[row.digest]


def _held(row: ReleaseRow, bundles: BundleStore, is_needed: bool) -> Pin | None:
    """What the release needs; None for one that could only be rolled back to, and has no bundle."""
    try:
        return _pin(row, bundles)
    except BundleNotFound:
        if is_needed:
            raise
        return None


def _in_use(session: Session, kept: int) -> list[tuple[ReleaseRow, bool]]:
    """Releases, and whether each is needed or only kept for a rollback."""
    served = {live.release for live in live_versions(session)}
    kept_ids = _kept_for_rollback(session, kept)
    under_way = [str(state) for state in (*STAGES, State.LIVE)]
    rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.opened_us))
    found = ((row, row.state in under_way or row.id in served) for row in rows)
    return [(row, needed) for row, needed in found if needed or row.id in kept_ids]


def _kept_for_rollback(session: Session, kept: int) -> set[str]:
    """The releases of each version that production served last before the live one."""
    served = session.execute(
        select(ReleaseRow.application, ReleaseRow.api_version, ReleaseRow.id)
        .join(LiveVersionRow, LiveVersionRow.release_id == ReleaseRow.id)
        .where(LiveVersionRow.environment == PROD, ReleaseRow.state == State.RETIRED)
        .order_by(LiveVersionRow.id.desc())
    )
    found: dict[tuple[str, int], dict[str, None]] = {}
    for application, api_version, release in served:
        newest = found.setdefault((application, api_version), {})
        if len(newest) < kept:
            newest[release] = None
    return {release for newest in found.values() for release in newest}


def _pin(row: ReleaseRow, bundles: BundleStore) -> Pin:
    bundle = bundles.open(row.digest)
    training = msgspec.json.decode((bundle.path / TRAINING).read_bytes(), type=TrainingSetManifest)
    return Pin(
        holder=f"release {row.id} ({row.application}/v{row.api_version}, {row.state})",
        training_set=training.id,
        tables=training.tables,
        views=tuple((view.name, view.version) for view in bundle.manifest.service.views),
    )
