"""An online store for each environment: all are written, and one that fails fails the run."""

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.core.clock import parse_instant
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import find_entity
from konveyer.feature_store.etl.flow import EtlFailed
from konveyer.feature_store.etl.vacuum import plan_vacuum, vacuum
from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable, Record
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.online.several import SeveralOnlineStores
from tests.desk import ADMIN, Desk
from tests.online_stores import InterruptedStore
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


def write_visits(desk: Desk, *rows: tuple[int, str, str]) -> None:
    clients, times, shops = zip(*rows, strict=True)
    at = pa.array(times).cast(pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"client": clients, "at": at, "shop": shops}), desk.root / "payments.parquet"
    )


@pytest.fixture
def half_published(desk: Desk) -> tuple[Store, MemoryOnlineStore]:
    """Of two stores the first has a newer row and a new client, which the source takes back."""
    prod, test = MemoryOnlineStore(), Away()
    store = stores_of(desk, prod=prod, test=test)
    newest = FeatureView(
        name="newest",
        entity="client",
        sql='SELECT client, "at" AS event_time, shop FROM payments',
        features=(Feature(name="shop", dtype="string"),),
    )
    service = FeatureService(name="scoring", features=("newest",))
    test.away = False
    write_visits(desk, (1, "2026-01-01T00:00:00Z", "a"))
    store.apply(*DEFINITIONS[:2], newest, service)
    store.etl()
    test.away = True
    for client in (2, 3):
        rows = (1, "2026-01-05T00:00:00Z", "b"), (client, "2026-01-05T00:00:00Z", "b")
        write_visits(desk, (1, "2026-01-01T00:00:00Z", "a"), *rows)
        with pytest.raises(EtlFailed):
            store.etl()
    assert read_by(store, prod, 1, 2, 3) == [("b",), ("b",), ("b",)]
    test.away = False
    write_visits(desk, (1, "2026-01-01T00:00:00Z", "a"))
    return store, prod


def test_what_failed_runs_put_online_is_replaced_though_it_is_newer(
    desk: Desk, half_published: tuple[Store, MemoryOnlineStore]
) -> None:
    store, prod = half_published
    catalog, online = store.services.catalog, store.services.online
    upkeep = catalog, store.admin, store.services.offline
    plan = plan_vacuum(*upkeep, lambda _: [], keep_us=0)
    vacuum(*upkeep, online, lambda _: [], plan)
    store.etl()
    assert read_by(store, prod, 1, 2, 3) == [("a",), None, None]
    (after,) = plan_vacuum(*upkeep, lambda _: [], keep_us=0)
    assert [one.reason for one in after.kept] == ["readable"]


def test_publishing_again_replaces_what_failed_runs_put_online(
    half_published: tuple[Store, MemoryOnlineStore],
) -> None:
    store, prod = half_published
    store.publish()
    assert read_by(store, prod, 1, 2, 3) == [("a",), None, None]


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


@pytest.mark.parametrize("killed", [False, True])
def test_who_leaves_while_it_is_published_again_is_taken_away(desk: Desk, killed: bool) -> None:
    online = InterruptedStore()
    store = stores_of(desk, prod=online)
    store.apply(*DEFINITIONS)
    store.etl()

    def is_killed() -> None:
        raise KeyboardInterrupt

    def leaves() -> None:
        rows = pq.read_table(desk.root / "payments.parquet")
        pq.write_table(rows.slice(0, 1), desk.root / "payments.parquet")
        store.etl()
        online.before_put = is_killed if killed else None

    online.before_put = leaves
    publishes = store.planned((), (), again=True)
    if killed:
        with pytest.raises(KeyboardInterrupt):
            publishes()
        assert read_by(store, online, 1, 2) == [(5,), (16,)]
    publishes()
    assert read_by(store, online, 1, 2) == [(5,), None]


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
