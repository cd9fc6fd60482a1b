"""From definitions to training set and online read, on small data whose answers are known."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock, parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.segments import log_folder
from konveyer.feature_store.datamart.kept_rows import open_training_set
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.published import published_features
from konveyer.feature_store.datamart.search import search_features
from konveyer.feature_store.datamart.show import show_view
from konveyer.feature_store.definitions.definition import Definition, Kind
from konveyer.feature_store.etl import flow
from konveyer.feature_store.etl.flow import EtlFailed
from konveyer.feature_store.etl.pins import Pin
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.etl.runs import EtlRun, list_runs
from konveyer.feature_store.offline import layout
from konveyer.feature_store.online.base import Record
from konveyer.feature_store.online.codec import encode_key
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.registry.apply import apply
from konveyer.feature_store.registry.errors import PlanOutdated
from konveyer.feature_store.registry.lookup import active_state, resolve_service, version_history
from konveyer.feature_store.registry.plan import plan_apply
from konveyer.feature_store.registry.state import registry_state
from konveyer.feature_store.sources.errors import WrongType
from tests.predictions import prediction
from tests.unit.etl.store import PlainSteps, Store, opened_store

NOW = "2026-01-10T12:00:00Z"
CLIENTS = 40

CLIENT = Entity(name="client", join_keys=(JoinKey("bank", "string"), JoinKey("client_id", "int64")))
PAYMENTS = Source(name="payments", path="payments.parquet", event_time="paid_at")
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(function="count", over="3d", name="payments_3d"),
        Aggregation(column="cents", function="sum", over="3d", minimum=0),
        Aggregation(column="cents", function="max", over="3d", where="cents < 500", name="small"),
        Aggregation(column="city", function="count", over="3d", name="cities_3d"),
    ),
    description="What a client spends.",
)
PROFILE = FeatureView(
    name="profile",
    entity="client",
    sql="SELECT bank, client_id, paid_at AS event_time, city FROM payments",
    features=(Feature(name="city", dtype="string", one_of=("Oslo", "Rome")),),
    ttl="5d",
)
GROWTH = FeatureView(
    name="growth",
    entity="client",
    sql="""
        SELECT bank, client_id, paid_at AS event_time,
            CASE client_id WHEN 1 THEN CAST('Infinity' AS DOUBLE)
                WHEN 2 THEN CAST('-Infinity' AS DOUBLE) ELSE 0.5 END AS rate
        FROM payments
    """,
    features=(Feature(name="rate", dtype="float64"),),
)
SCORING = FeatureService(name="scoring", features=("spend", "profile"))
DEFINITIONS: tuple[Definition, ...] = (CLIENT, PAYMENTS, SPEND, PROFILE, SCORING)


def write_payments(root: Path, *, cents: int = 100) -> None:
    """Each client pays `cents` x its number once a day at noon, from 1 to 10 January."""
    rows = [
        ("a" if client % 2 else "aa", client, f"2026-01-{day:02d}T12:00:00", client * cents)
        for client in range(CLIENTS)
        for day in range(1, 11)
    ]
    banks, clients, times, amounts = zip(*rows, strict=True)
    pq.write_table(
        pa.table(
            {
                "bank": pa.array(banks),
                "client_id": pa.array(clients, pa.int32()),
                "paid_at": pa.array(times).cast(pa.timestamp("us")),
                "cents": pa.array(amounts, pa.int64()),
                "city": pa.array(["Oslo" if c % 3 else None for c in clients]),
            }
        ),
        root / "payments.parquet",
    )


@pytest.fixture(params=[2_000_000, 50], ids=["one-bucket", "many-buckets"])
def rows_per_bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", request.param)


@pytest.fixture
def store(catalog: Catalog, admin: Actor, tmp_path: Path, rows_per_bucket: None) -> Iterator[Store]:
    write_payments(tmp_path)
    with opened_store(catalog, admin, tmp_path, now=NOW) as store:
        yield store


def labels(*rows: tuple[str, int, str]) -> pa.Table:
    banks, clients, times = zip(*rows, strict=True)
    at = pa.array(times).cast(pa.timestamp("us"))
    return pa.table({"at": at, "client_id": pa.array(clients), "bank": pa.array(banks)})


def test_a_training_set_has_each_label_once_in_order_with_what_was_known_then(
    store: Store,
) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    built = store.training_set(
        labels(
            ("a", 3, "2026-01-05T18:00:00"),  # snapshot at midnight: the payments of 2 to 4 Jan
            ("a", 4, "2026-01-05T18:00:00"),  # client 4 is with the other bank
            ("aa", 4, "2026-01-05T18:00:00"),
            ("a", 3, "2025-12-31T00:00:00"),
            ("a", 7, "2026-01-20T00:00:00"),  # no payment for ten days
        )
    )
    columns = ["payments_3d", "cents_sum_3d", "small", "cities_3d", "city"]
    assert built.table.column_names == ["at", "client_id", "bank", *columns]
    assert built.table.select(["client_id"]).to_pydict() == {"client_id": [3, 4, 4, 3, 7]}
    assert [tuple(row.values()) for row in built.table.select(columns).to_pylist()] == [
        (3, 900, 300, 0, None),
        (0, None, None, 0, None),
        (3, 1200, 400, 3, "Oslo"),
        (0, None, None, 0, None),
        (0, None, None, 0, None),
    ]
    with store.services.catalog.transaction() as session:
        again = open_training_set(session, built.path.parent, None, "scoring")
    assert again.manifest == built.manifest
    assert again.table.equals(built.table)


def test_a_manifest_pins_the_tables_and_the_result(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    asked = labels(("a", 3, "2026-01-05T18:00:00"))
    first, second = store.training_set(asked), store.training_set(asked)
    assert first.manifest.result_digest == second.manifest.result_digest
    assert first.manifest.tables == second.manifest.tables
    write_payments(store.services.root, cents=200)
    store.etl()
    third = store.training_set(asked)
    assert third.manifest.labels_digest == first.manifest.labels_digest
    assert third.manifest.result_digest != first.manifest.result_digest
    assert {ref.table_version for ref in third.manifest.tables} == {1}


def test_online_equals_offline_for_every_client(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    keys = [("a" if client % 2 else "aa", client) for client in range(CLIENTS)]
    with store.services.catalog.transaction() as session:
        service = resolve_service(session, active_state(session), "scoring")
    offline = published_features(
        store.services.catalog,
        store.services.engine,
        store.services.offline,
        service,
        keys,
        [()] * len(keys),
    )
    online = store.online(*keys)
    assert online == offline
    # Midnight of 10 January: the payments of 7, 8 and 9 January.
    assert online[4] == (3, 1200, 400, 3, "Oslo")
    assert store.online(("b", 4), ("aa", 5)) == [None, None]


def test_infinite_features_are_offline_as_the_prediction_log_has_them(
    store: Store, tmp_path: Path
) -> None:
    store.apply(CLIENT, PAYMENTS, GROWTH, FeatureService(name="scoring", features=("growth",)))
    store.etl()
    keys = [("a", 1), ("aa", 2), ("a", 3)]
    services = store.services
    with services.catalog.transaction() as session:
        service = resolve_service(session, active_state(session), "scoring")
    log = PredictionLog(log_folder(tmp_path, "prod"))
    for features in store.online(*keys):
        log.add(prediction(features=features))
    log.close()
    logged = [row["features"] for row in read_predictions(FolderStorage(tmp_path), "prod")][::-1]
    offline = published_features(
        services.catalog, services.engine, services.offline, service, keys, [()] * len(keys)
    )
    assert [[*row] for row in offline] == logged == [["Infinity"], ["-Infinity"], [0.5]]


def test_what_was_online_at_a_moment_is_what_training_would_see_then(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    asked = [
        ("a", 3, "2026-01-05T18:00:00"),
        ("aa", 4, "2026-01-06T03:00:00"),
        ("a", 3, "2025-12-31T00:00:00"),
        ("aa", 4, "2026-01-09T23:59:59"),
    ]
    built = store.training_set(labels(*asked)).table
    columns = ["payments_3d", "cents_sum_3d", "small", "cities_3d", "city"]
    trained = [tuple(row.values()) for row in built.select(columns).to_pylist()]
    with store.services.catalog.transaction() as session:
        service = resolve_service(session, active_state(session), "scoring")

    def published(*moments_us: int) -> list[tuple[object, ...]]:
        services = store.services
        return published_features(
            services.catalog,
            services.engine,
            services.offline,
            service,
            [(bank, client) for bank, client, _ in asked],
            [()] * len(asked),
            moments_us or None,
        )

    assert published(*(parse_instant(at) for *_, at in asked)) == trained
    # What no run has seen yet was not online either.
    assert published(*[parse_instant("2026-02-01T00:00:00Z")] * len(asked)) == published()


def test_a_release_goes_on_reading_the_version_that_it_was_trained_on(
    store: Store, tmp_path: Path
) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    with store.services.catalog.reading() as session:
        trained_on = resolve_service(session, active_state(session), "scoring")
    views = tuple((view.name, view.version) for view in trained_on.views)
    pin = Pin(holder="release", training_set=None, tables=(), views=views)
    released = OnlineLookup(trained_on, store.services.online, FeatureClock(store.now_us))
    before = released.rows([("a", 3)])
    assert before == [(3, 900, 300, 0, None)]

    larger = Source(
        name="payments",
        sql="SELECT * REPLACE (cents * 10 AS cents) FROM raw_payments",
        event_time="paid_at",
    )
    raw = Source(name="raw_payments", path="payments.parquet")
    store.apply(CLIENT, raw, larger, SPEND, PROFILE, SCORING)
    write_payments(tmp_path, cents=101)
    store.etl(pins=[pin])
    assert store.online(("a", 3)) == [(3, 9090, None, 0, None)]
    assert released.rows([("a", 3)]) == [(3, 909, 303, 0, None)]
    runs = {(run.view, run.version) for run in list_of(store)[:4]}
    assert len(runs) == 4
    assert set(views) < runs

    store.apply(CLIENT)  # nothing is defined any more, and the release still reads
    write_payments(tmp_path, cents=102)
    store.etl(pins=[pin])
    assert released.rows([("a", 3)]) == [(3, 918, 306, 0, None)]


def test_each_version_of_a_view_that_fails_is_told(store: Store, tmp_path: Path) -> None:
    store.apply(*DEFINITIONS)
    with store.services.catalog.reading() as session:
        before = active_state(session).versions[Kind.VIEW, "spend"]
    pin = Pin(holder="release", training_set=None, tables=(), views=(("spend", before),))
    store.apply(CLIENT, PAYMENTS, replace(SPEND, aggregations=SPEND.aggregations[:1]))
    (tmp_path / "payments.parquet").unlink()
    with pytest.raises(EtlFailed, match=r"2 of 2 view\(s\) failed") as caught:
        store.etl(pins=[pin])
    runs = list_of(store)
    assert f"spend {before}" in caught.value.detail
    assert set(caught.value.detail) == {f"{run.view} {run.version}" for run in runs}


def list_of(store: Store) -> list[EtlRun]:
    with store.services.catalog.reading() as session:
        return list_runs(session)


@pytest.mark.parametrize("then", [10, 2_000_000], ids=["into-many", "into-one"])
def test_what_the_source_takes_back_is_served_no_more(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: int
) -> None:
    """Also where the new table has more buckets than the one before, or fewer."""
    store.apply(*DEFINITIONS)
    store.etl()
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", then)
    table = pq.read_table(tmp_path / "payments.parquet")
    gone = [5, 9, 11, 13]
    kept = pc.invert(pc.is_in(table["client_id"], pa.array(gone)))
    days = pc.less(table["paid_at"], pa.scalar(datetime(2026, 1, 9), pa.timestamp("us")))
    kept = pc.and_(kept, pc.or_(days, pc.not_equal(table["client_id"], 4)))
    pq.write_table(table.filter(kept), tmp_path / "payments.parquet")
    store.etl()
    assert store.online(*(("a", client) for client in gone)) == [None] * len(gone)
    assert store.online(("aa", 4)) == [(2, 800, 400, 2, "Oslo")]
    assert store.online(("a", 7)) == [(3, 2100, None, 3, "Oslo")]
    with store.services.catalog.reading() as session:
        service = resolve_service(session, active_state(session), "scoring")
    keys = [
        ("a" if client % 2 else "aa", client) for client in range(CLIENTS) if client not in gone
    ]
    offline = published_features(
        store.services.catalog,
        store.services.engine,
        store.services.offline,
        service,
        keys,
        [()] * len(keys),
    )
    assert store.online(*keys) == offline


def test_a_value_past_its_ttl_is_not_served(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    later = parse_instant(NOW) + 6 * 86_400_000_000
    ((*_, city),) = store.online(("aa", 4), now_us=later)
    assert city is None


def test_values_that_fail_leave_everything_as_it_was(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    before = store.online(("a", 3))
    asked = labels(("a", 3, "2026-01-05T18:00:00"))
    pinned = store.training_set(asked).manifest.tables
    write_payments(store.services.root, cents=-100)
    with pytest.raises(KonveyerError, match="cents_sum_3d") as caught:
        store.etl("spend")
    assert caught.value.code == "etl_failed"
    assert store.online(("a", 3)) == before
    assert store.training_set(asked).manifest.tables == pinned
    with store.services.catalog.transaction() as session:
        failed = list_runs(session)[0]
    assert (failed.view, failed.status, failed.person) == ("spend", "failed", "admin")
    assert failed.error is not None
    assert failed.error["code"] == "quality_check_failed"


class _Killed(BaseException):
    pass


class _KilledOnce(PlainSteps):
    """A step that ended is on record, but for the first publication."""

    def __init__(self) -> None:
        self.on_record: dict[str, Any] = {}
        self.killed = False

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        if name not in self.on_record:
            ended = work()
            if name.startswith("publish") and not self.killed:
                self.killed = True
                raise _Killed
            self.on_record[name] = ended
        return self.on_record[name]


def test_a_run_that_was_killed_after_it_had_succeeded_publishes_nothing_again(
    store: Store, tmp_path: Path
) -> None:
    store.apply(*DEFINITIONS)
    with store.services.catalog.reading() as session:
        run = plan_etl(session, store.admin, ["spend"], as_of_us=store.now_us).run
    steps, asked = _KilledOnce(), labels(("a", 3, "2026-01-05T18:00:00"))
    with pytest.raises(_Killed):
        flow.etl_flow(store.services).run(steps, run.payload)
    write_payments(tmp_path, cents=200)
    store.etl()
    online, trained = store.online(("a", 3)), store.training_set(asked).table
    flow.etl_flow(store.services).run(steps, run.payload)
    assert store.online(("a", 3)) == online
    assert store.training_set(asked).table == trained


def test_one_failing_view_does_not_keep_the_others_from_being_published(store: Store) -> None:
    strict = replace(PROFILE, features=(replace(PROFILE.features[0], one_of=("Rome",)),))
    store.apply(CLIENT, PAYMENTS, SPEND, strict, SCORING)
    with pytest.raises(KonveyerError, match="1 of 2"):
        store.etl()
    with store.services.catalog.transaction() as session:
        statuses = {run.view: run.status for run in list_runs(session)}
    assert statuses == {"profile": "failed", "spend": "succeeded"}


def test_applying_is_idempotent_and_keeps_history(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.apply(*DEFINITIONS)
    changed = replace(SPEND, refresh="2d")
    store.apply(CLIENT, PAYMENTS, changed, PROFILE, SCORING)
    with store.services.catalog.transaction() as session:
        history = version_history(session, Kind.VIEW, "spend")
        assert [entry.active for entry in history] == [True, False]
    store.apply(*DEFINITIONS)  # back again: the old version holds, and nothing is added
    with store.services.catalog.transaction() as session:
        history = version_history(session, Kind.VIEW, "spend")
        assert [entry.active for entry in history] == [False, True]
    store.apply(CLIENT, PAYMENTS)
    with store.services.catalog.transaction() as session:
        assert active_state(session).names(Kind.VIEW) == []


class _Watched(MemoryOnlineStore):
    """Notes after each write what a reader of one record would find."""

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key
        self.seen: list[bytes | None] = []

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        super().put(space, records, even_older=even_older)
        self.seen += self.get([(space, self._key)])

    def delete(self, space: str, keys: Iterable[bytes]) -> None:
        super().delete(space, keys)
        self.seen += self.get([(space, self._key)])


def test_a_row_that_was_taken_back_leaves_no_moment_without_a_record(
    store: Store, tmp_path: Path
) -> None:
    online = _Watched(encode_key(["a", 3]))
    store = replace(store, services=replace(store.services, online=online))
    newest = replace(
        PROFILE,
        sql="SELECT bank, client_id, paid_at AS event_time, cents FROM payments",
        features=(Feature(name="cents", dtype="int64"),),
    )
    store.apply(CLIENT, PAYMENTS, newest, FeatureService(name="scoring", features=("profile",)))
    store.etl()
    path = tmp_path / "payments.parquet"
    rows = pq.read_table(path)
    last = pc.max(rows["paid_at"])
    pq.write_table(rows.filter(pc.less(rows["paid_at"], last)), path)
    online.seen.clear()
    store.etl()
    assert None not in online.seen
    (row,) = store.online(("a", 3))
    assert row == (300,)


def test_a_table_that_was_lost_is_made_again(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    for file in (store.services.root / "offline").rglob("*.parquet"):
        file.unlink()
    asked = labels(("a", 3, "2026-01-05T18:00:00"))
    with pytest.raises(KonveyerError, match="cannot be read"):
        store.training_set(asked)
    store.etl()
    assert store.training_set(asked).table["cents_sum_3d"].to_pylist() == [900]


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (Feature(name="city", dtype="string", minimum=0), "a minimum or a maximum, but it is str"),
        (Feature(name="cents", dtype="int64", one_of=("1",)), "`one_of`, which is for texts"),
    ],
)
def test_limits_that_do_not_fit_a_type_are_refused_when_applied(
    store: Store, feature: Feature, said: str
) -> None:
    sql = "SELECT bank, client_id, paid_at AS event_time, city, cents FROM payments"
    view = FeatureView(name="limited", entity="client", sql=sql, features=(feature,))
    with pytest.raises(WrongType, match=f"'limited', feature '{feature.name}'.*{said}"):
        store.apply(CLIENT, PAYMENTS, view)


def test_a_row_of_which_nobody_knows_when_it_became_known_was_known_at_once(store: Store) -> None:
    seen = Source(
        name="seen",
        sql="""SELECT *, CASE WHEN client_id = 3 THEN NULL ELSE TIMESTAMP '2026-02-01' END AS known
            FROM payments""",
        event_time="paid_at",
        created_time="known",
    )
    view = FeatureView(
        name="all_time",
        entity="client",
        source="seen",
        aggregations=(Aggregation(function="count", over="unbounded", name="payments_seen"),),
        accuracy="exact",
    )
    service = FeatureService(name="scoring", features=("all_time",))
    store.apply(CLIENT, PAYMENTS, seen, view, service)
    store.etl()
    asked = labels(("a", 3, "2026-01-05T18:00:00"), ("a", 5, "2026-01-05T18:00:00"))
    assert store.training_set(asked).table["payments_seen"].to_pylist() == [5, 0]


def test_other_words_for_a_view_make_no_new_version(store: Store) -> None:
    store.apply(*DEFINITIONS)
    store.etl()
    first, *rest = SPEND.aggregations
    told = replace(
        SPEND,
        description="What a client spends in three days.",
        owner="treasury",
        aggregations=(replace(first, unit="EUR", sensitivity="personal"), *rest),
    )
    checked = store.check(CLIENT, PAYMENTS, told, PROFILE, SCORING)
    with store.services.catalog.transaction() as session:
        plan = plan_apply(active_state(session), checked.state)
        assert [(change.action, change.name) for change in plan.changes] == [("describe", "spend")]
        apply(session, store.admin, plan, checked)
    with store.services.catalog.transaction() as session:
        assert [entry.active for entry in version_history(session, Kind.VIEW, "spend")] == [True]
        assert active_state(session).view("spend") == told
        found = {one.feature: one for one in search_features(session, "treasury")}[first.name]
        assert (found.unit, found.sensitivity) == ("EUR", "personal")
        assert not plan_apply(active_state(session), checked.state).changes
    assert store.training_set(labels(("a", 3, "2026-01-05T18:00:00"))).table.num_rows == 1


def test_a_plan_that_somebody_overtook_is_refused_whole(store: Store) -> None:
    checked = store.check(*DEFINITIONS)
    plan = plan_apply(registry_state([]), checked.state)
    store.apply(CLIENT, PAYMENTS)
    with store.services.catalog.transaction() as session, pytest.raises(PlanOutdated):
        apply(session, store.admin, plan, checked)
    with store.services.catalog.transaction() as session:
        assert active_state(session).names(Kind.VIEW) == []


def test_a_profile_is_of_entities_of_all_buckets_up_to_a_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 50)
    monkeypatch.setattr(flow, "_MOST_PROFILED", CLIENTS // 2)
    store.apply(*DEFINITIONS)
    store.etl("spend")
    with store.services.catalog.transaction() as session:
        profile = show_view(session, "spend").profiles["payments_3d"]
    assert CLIENTS // 4 < profile["rows"] <= CLIENTS // 2
    assert profile["counts"] == [profile["rows"]]


def test_a_feature_may_be_called_count(store: Store) -> None:
    sql = "SELECT bank, client_id, paid_at AS event_time, city AS count FROM payments"
    features = (Feature(name="count", dtype="string"),)
    store.apply(CLIENT, PAYMENTS, replace(PROFILE, sql=sql, features=features))
    store.etl()
    with store.services.catalog.transaction() as session:
        profile = show_view(session, "profile").profiles["count"]
    assert profile["labels"] == ["Oslo"]
    assert profile["counts"] == [profile["rows"] - profile["nulls"]]


def test_the_datamart_finds_shows_and_counts(store: Store) -> None:
    store.apply(*DEFINITIONS)
    with store.services.catalog.transaction() as session:
        assert [f.feature for f in search_features(session, "SPENDS cents")] == ["cents_sum_3d"]
        assert search_features(session, "nothing like this") == []
        assert show_view(session, "spend").computed is None
    store.etl()
    store.training_set(labels(("a", 3, "2026-01-05T18:00:00")))
    with store.services.catalog.transaction() as session:
        shown = show_view(session, "spend")
    assert shown.computed is not None
    assert shown.computed.rows == CLIENTS * 10
    assert shown.profiles["payments_3d"]["mean"] == 3.0
    assert {use.person for use in shown.uses} == {"admin"}
    assert {feature.uses for feature in shown.features} == {1}


def test_an_overflow_in_a_training_set_names_the_view_and_the_feature(
    store: Store, tmp_path: Path
) -> None:
    """What is published has no such window any more, so that only training meets it."""
    rows = pq.read_table(tmp_path / "payments.parquet")
    early = rows.filter(pc.less(rows["paid_at"], datetime(2026, 1, 4)))
    cents = pa.array([2**62] * len(early), pa.int64())
    pq.write_table(early.set_column(3, "cents", cents), tmp_path / "payments.parquet")
    store.apply(*DEFINITIONS)
    store.etl()
    with pytest.raises(KonveyerError) as caught:
        store.training_set(labels(("a", 3, "2026-01-05T00:00:00")))
    assert caught.value.code == "number_overflow"
    assert "Feature view 'spend'" in caught.value.message
    assert "'cents_sum_3d'" in caught.value.message


def test_an_overflow_in_etl_names_the_view_and_the_feature(store: Store, tmp_path: Path) -> None:
    rows = pq.read_table(tmp_path / "payments.parquet")
    cents = pa.array([2**62] * len(rows), pa.int64())
    pq.write_table(rows.set_column(3, "cents", cents), tmp_path / "payments.parquet")
    store.apply(*DEFINITIONS)
    with pytest.raises(KonveyerError, match="Feature view 'spend': Feature 'cents_sum_3d': A sum"):
        store.etl("spend")
