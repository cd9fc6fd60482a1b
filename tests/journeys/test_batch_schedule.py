"""Models that are scored by themselves while a worker runs, also one that is killed."""

import signal
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from deltalake import DeltaTable

from konveyer.bundle.manifest import Batch
from konveyer.catalog.session import Catalog
from konveyer.core.settings import load_settings
from konveyer.execution.batch.runs import BatchRun, list_batch_runs
from konveyer.execution.releases.records import release_row, set_live
from konveyer.execution.releases.service import open_release
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.wiring import open_workspace
from tests.journeys.test_schedule import worker
from tests.support import Shop, wait_for
from tests.unit.batch.scorer import ADMIN, packed, write_payments

DEFINITIONS = """
from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
payments = Source(name="payments", path="payments.parquet", event_time="at")
spend = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="90d"),),
)
scoring = FeatureService(name="scoring", features=("spend",))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A workspace by the wall clock, whose live model is to be scored every three seconds."""
    shop = Shop(tmp_path / "shop")
    shop.run("init", str(shop.root))
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    write_payments(shop.root)
    shop.run("apply")
    shop.run("etl", "run")
    workspace = open_workspace(load_settings(shop.root))
    with workspace.catalog.transaction() as session:
        service = resolve_service(session, active_state(session), "scoring")
        bundle = packed(workspace.bundles, service, batch=Batch(every="3s"))
        row = release_row(session, open_release(session, ADMIN, bundle))
        row.state = "live"
        set_live(session, "prod", row)
    workspace.close()
    return shop


def runs(shop: Shop) -> list[BatchRun]:
    """In the order in which they started."""
    catalog = Catalog(f"sqlite:///{shop.root}/state/catalog.db")
    with catalog.reading() as session:
        found = list_batch_runs(session, limit=100)
    catalog.close()
    return found[::-1]


def has_begun(shop: Shop, times: int) -> bool:
    return len(runs(shop)) >= times


@pytest.mark.slow
def test_a_model_is_scored_once_in_each_period_through_kills(shop: Shop) -> None:
    assert [one["every"] for one in shop.run("batch", "list")] == ["3s"]
    for count in (1, 2):
        with worker(shop) as process:
            wait_for(partial(has_begun, shop, count), process)
            process.send_signal(signal.SIGKILL)
            process.wait()
    with worker(shop) as process:
        wait_for(lambda: sum(run.status == "succeeded" for run in runs(shop)) >= 4, process)

    found = runs(shop)
    assert {run.person for run in found} == {"schedule"}
    assert len({run.period for run in found}) == len(found)
    assert all(run.at_us % 3_000_000 == 0 for run in found)
    # Of those whose worker was killed, the last one may still be under way.
    done = [run for run in found if run.status == "succeeded"]
    assert found[: len(done)] == done
    assert all(one.at_us < other.at_us for one, other in pairwise(done))
    rows = DeltaTable(str(shop.root / "scores/scoring/v1")).to_pyarrow_table().to_pylist()
    scored = {(row["period"], row["client_id"]) for row in rows}
    assert len(scored) == len(rows)
    assert {(run.period, client) for run in done for client in range(40)} <= scored
