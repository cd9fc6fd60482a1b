"""An online store for each environment: all are written, and one that fails fails the run."""

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source
from konveyer.core.clock import parse_instant
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import find_entity
from konveyer.feature_store.etl.flow import EtlFailed
from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable, Record
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.online.several import SeveralOnlineStores
from tests.desk import ADMIN, Desk
from tests.unit.etl.store import Store

NOW = parse_instant("2026-01-10T12:00:00Z")
DEFINITIONS = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Source(name="payments", path="payments.parquet", event_time="at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(Aggregation(column="amount", function="sum", over="unbounded", name="all"),),
    ),
    FeatureService(name="scoring", features=("spend",)),
)


class Away(MemoryOnlineStore):
    """A store that does not answer for as long as it is `away`."""

    away = True

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        if self.away:
            raise OnlineStoreUnavailable("Connection refused.", hint="start it")
        super().put(space, records, even_older=even_older)


def stores_of(desk: Desk, **stores: OnlineStore) -> Store:
    several = SeveralOnlineStores({f"environment '{name}'": one for name, one in stores.items()})
    return Store(replace(desk.services, online=several), ADMIN, NOW)


def read_by(store: Store, online: OnlineStore, *clients: int) -> list[object]:
    one = replace(store, services=replace(store.services, online=online))
    return one.online(*((client,) for client in clients))


@pytest.fixture(autouse=True)
def payments(desk: Desk) -> None:
    at = pa.array([0, 0, 0], pa.timestamp("us", "UTC"))
    rows = pa.table({"client": [1, 2, 2], "at": at, "amount": [5, 7, 9]})
    pq.write_table(rows, desk.root / "payments.parquet")


def test_every_store_holds_the_same(desk: Desk) -> None:
    test, prod = MemoryOnlineStore(), MemoryOnlineStore()
    store = stores_of(desk, test=test, prod=prod)
    store.apply(*DEFINITIONS)
    store.etl()
    for online in (test, prod):
        assert read_by(store, online, 1, 2) == [(5,), (16,)]


def test_a_store_that_is_away_fails_the_run_and_repeating_it_is_enough(desk: Desk) -> None:
    test, prod = Away(), MemoryOnlineStore()
    store = stores_of(desk, prod=prod, test=test)
    store.apply(*DEFINITIONS)
    with pytest.raises(EtlFailed) as caught:
        store.etl()
    assert "Feature view 'spend'" in caught.value.message
    assert "environment 'test'" in caught.value.message
    assert desk.readable("spend") is None
    test.away = False
    store.etl()
    assert read_by(store, test, 2) == read_by(store, prod, 2) == [(16,)]


def test_a_store_that_is_new_is_filled_without_computing(desk: Desk) -> None:
    prod, new = MemoryOnlineStore(), MemoryOnlineStore()
    store = stores_of(desk, prod=prod)
    store.apply(*DEFINITIONS)
    store.etl()
    before = desk.runs("spend")[0]
    (desk.root / "payments.parquet").unlink()
    store = stores_of(desk, prod=prod, test=new)
    store.publish()
    assert read_by(store, new, 1, 2) == [(5,), (16,)]
    after = desk.runs("spend")[0]
    assert (after.table_version, after.published) == (before.table_version, 2)
    assert after.as_of_us == before.as_of_us
    assert desk.show("spend").profiles["all"]


def test_nothing_is_published_of_what_was_never_computed(desk: Desk) -> None:
    store = stores_of(desk, prod=MemoryOnlineStore())
    store.apply(*DEFINITIONS)
    store.publish()
    assert desk.runs("spend") == []


def test_who_is_forgotten_leaves_all_of_them(desk: Desk) -> None:
    test, prod = MemoryOnlineStore(), MemoryOnlineStore()
    store = stores_of(desk, test=test, prod=prod)
    store.apply(*DEFINITIONS)
    store.etl()
    services, folder = store.services, store.training_sets
    forget(
        services,
        ADMIN,
        folder,
        lambda: find_entity(services, ADMIN, folder, "client", {"client": "2"}),
        everywhere=False,
    )
    for online in (test, prod):
        assert read_by(store, online, 1, 2) == [(5,), None]
    store.publish()
    for online in (test, prod):
        assert read_by(store, online, 1, 2) == [(5,), None]
