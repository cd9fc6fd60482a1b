"""Which versions of views ETL keeps computing, and which a rollback would find left behind."""

from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer import Entity, Feature, FeatureView, JoinKey, Source
from konveyer.execution.releases.freshness import ages, left_behind
from konveyer.feature_store.definitions.resolved import ResolvedView
from konveyer.feature_store.etl.runs import begin, succeed
from konveyer.feature_store.offline.table_version import TableRef
from konveyer.feature_store.registry.lookup import active_state
from tests.desk import NOW, Desk

DAY_US = 86_400_000_000
DEFINITIONS = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="last",
        entity="client",
        sql="SELECT client, paid_at AS event_time, amount FROM payments",
        features=(Feature(name="amount", dtype="float64"),),
        refresh="1d",
    ),
)


def computed(desk: Desk) -> ResolvedView:
    """The view, computed up to `NOW`."""
    paid = pa.table({"client": [1], "paid_at": [datetime(2026, 1, 1)], "amount": [5.0]})
    pq.write_table(paid, desk.root / "payments.parquet")
    desk.apply(*DEFINITIONS)
    desk.etl("last")
    with desk.services.catalog.reading() as session:
        versions = active_state(session).versions
    (version,) = (found for (kind, name), found in versions.items() if name == "last")
    return ResolvedView(
        name="last",
        version=version,
        keys=(),
        columns=(),
        defaults=(),
        space="",
        ttl_us=None,
        windowed=False,
    )


def ran(desk: Desk, version: str, as_of_us: int) -> None:
    """ETL of this version of the view succeeded."""
    with desk.services.catalog.transaction() as session:
        begin(
            session, f"run-{version}-{as_of_us}", "last", version, person="ana", as_of_us=as_of_us
        )
        ref = TableRef(view="last", version=version, table_version=0, buckets=1)
        succeed(session, f"run-{version}-{as_of_us}", ref, rows=1, published=1)


def behind(desk: Desk, view: ResolvedView) -> list[str]:
    with desk.services.catalog.reading() as session:
        return left_behind(session, [view])


def test_a_version_that_etl_stopped_computing_is_left_behind(desk: Desk) -> None:
    view = computed(desk)
    assert behind(desk, view) == []
    ran(desk, "newer", NOW + 2 * DAY_US)
    assert behind(desk, view) == []
    ran(desk, "newer", NOW + 3 * DAY_US)
    (said,) = behind(desk, view)
    assert said == f"'last' {view.version}, last computed 2026-01-10T12:00:00Z"
    ran(desk, view.version, NOW + 3 * DAY_US)  # a release holds it: ETL computes both
    assert behind(desk, view) == []


def test_the_age_is_counted_from_what_etl_has_seen(desk: Desk) -> None:
    view = computed(desk)
    with desk.services.catalog.reading() as session:
        (fresh,) = ages(session, [view], NOW + 2 * DAY_US)
        (stale,) = ages(session, [view], NOW + 2 * DAY_US + 1)
    assert (fresh.is_stale, stale.is_stale) == (False, True)
    assert fresh.as_of == "2026-01-10T12:00:00Z"
