"""The right to be forgotten: he is gone, and everybody else is as before, bit for bit."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sqlalchemy import inspect, text

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.feature_store.datamart import forget as module
from konveyer.feature_store.datamart.forget import BeingComputed, forget
from konveyer.feature_store.datamart.held import BadKey, EntityNotFound, Held, find_entity
from konveyer.feature_store.datamart.kept_rows import TrainingSetNotRebuildable, open_training_set
from konveyer.feature_store.datamart.kept_sets import pins_of_training_sets
from konveyer.feature_store.datamart.manifest import TrainingSet
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.datamart.training_set import ForgottenMeanwhile
from konveyer.feature_store.definitions.definition import Definition, Kind
from konveyer.feature_store.etl import runs
from konveyer.feature_store.etl.vacuum import plan_vacuum, vacuum
from konveyer.feature_store.offline import layout
from konveyer.feature_store.offline.table_version import OfflineTableUnreadable, TableRef
from konveyer.feature_store.online.codec import encode_key
from konveyer.feature_store.registry.lookup import active_state
from konveyer.feature_store.sources.staging import staging_folder
from tests.online_stores import InterruptedStore
from tests.unit.etl.store import Store, opened_store

BANKS, CLIENTS = ("a", "né"), 40
HIM = {"bank": "né", "client": "17"}
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("bank", "string"), JoinKey("client", "int64"))),
    Entity(name="shop", join_keys=(JoinKey("shop", "string"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(Aggregation(column="amount", function="sum", over="3d", name="spent"),),
        accuracy="exact",
    ),
    FeatureView(
        name="newest",
        entity="client",
        sql="SELECT bank, client, paid_at AS event_time, shop AS last_shop FROM payments",
        features=(Feature(name="last_shop", dtype="string"),),
        accuracy="exact",
    ),
    FeatureView(
        name="takings",
        entity="shop",
        source="payments",
        aggregations=(Aggregation(function="count", over="unbounded", name="customers"),),
        accuracy="exact",
    ),
    FeatureService(name="scoring", features=("spend", "newest")),
    FeatureService(name="shops", features=("takings",)),
)


@pytest.fixture(params=[2_000_000, 30], ids=["one-bucket", "many-buckets"])
def store(
    catalog: Catalog,
    admin: Actor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Store]:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", request.param)
    rows = [
        (bank, client, f"2026-01-0{day}T12:00:00", client + day, f"shop {client % 3}")
        for bank in BANKS
        for client in range(CLIENTS)
        for day in range(1, 5)
    ]
    banks, clients, times, amounts, shops = (list(column) for column in zip(*rows, strict=True))
    paid_at = pa.array(times).cast(pa.timestamp("us"))
    payments = {"bank": banks, "client": clients, "paid_at": paid_at, "amount": amounts}
    pq.write_table(pa.table({**payments, "shop": shops}), tmp_path / "payments.parquet")
    with opened_store(catalog, admin, tmp_path, now="2026-02-01T00:00:00Z") as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store


def find(store: Store, entity: str = "client", actor: Actor | None = None, **key: str) -> Held:
    folder = store.services.root / "training_sets"
    return find_entity(store.services, actor or store.admin, folder, entity, key or HIM)


def forgotten(store: Store, entity: str = "client", *, everywhere: bool = False) -> Held:
    def found() -> Held:
        return find(store, entity)

    folder = store.services.root / "training_sets"
    return forget(store.services, store.admin, folder, found, everywhere=everywhere)


def readable(store: Store) -> dict[str, TableRef]:
    with store.services.catalog.reading() as session:
        versions = active_state(session).versions
        return {
            name: runs.readable_table(session, name, version)[0]
            for (kind, name), version in versions.items()
            if kind is Kind.VIEW
        }


def content(store: Store, ref: TableRef) -> list[pa.Table]:
    table = store.services.offline.open(ref)
    return [table.read(bucket).table for bucket in range(ref.buckets)]


def others(tables: list[pa.Table]) -> list[pa.Table]:
    him = [pc.and_(pc.equal(t["bank"], "né"), pc.equal(t["client"], 17)) for t in tables]
    return [t.filter(pc.invert(mask)) for t, mask in zip(tables, him, strict=True)]


def labels(*clients: tuple[str, int]) -> pa.Table:
    banks, numbers = zip(*clients, strict=True)
    at = pa.array(["2026-01-10T00:00:00"] * len(clients)).cast(pa.timestamp("us"))
    return pa.table({"bank": banks, "client": pa.array(numbers, pa.int64()), "at": at})


EVERYBODY = [(bank, client) for bank in BANKS for client in range(CLIENTS)]


def test_a_training_set_that_is_built_meanwhile_is_not_kept(store: Store) -> None:
    reads: list[object] = []

    def forgets_him(read: object) -> None:
        if not reads:
            forgotten(store, everywhere=True)
        reads.append(read)

    frame = labels(("né", 17), ("né", 3))
    with pytest.raises(ForgottenMeanwhile, match="forgotten while"):
        store.training_set(frame, watch=forgets_him)
    assert not list(store.training_sets.glob("set-*"))
    assert len(store.training_set(frame).table) == 2


def test_he_leaves_tables_and_records_and_the_others_stay_bit_for_bit(store: Store) -> None:
    before, records = readable(store), store.online(*EVERYBODY)
    tables = {view: content(store, ref) for view, ref in before.items()}
    files = {view: store.services.offline.open(ref).files for view, ref in before.items()}
    held = forgotten(store)
    assert [(table.ref.view, table.rows) for table in held.tables] == [("newest", 4), ("spend", 4)]
    assert len(held.spaces) == 2
    after = readable(store)
    assert after["takings"] == before["takings"]
    for view in ("spend", "newest"):
        assert content(store, after[view]) == others(tables[view])
        (bucket,) = {table.bucket for table in held.tables if table.ref.view == view}
        now = store.services.offline.open(after[view]).files
        assert {b for b in files[view] if now.get(b) != files[view][b]} == {bucket}
    him = EVERYBODY.index(("né", 17))
    assert records[him] is not None
    assert store.online(*EVERYBODY) == [*records[:him], None, *records[him + 1 :]]
    assert (find(store).tables, find(store).spaces) == ((), ())


def test_the_next_run_leaves_him_out_though_the_source_has_him(store: Store) -> None:
    tables = {view: content(store, ref) for view, ref in readable(store).items()}
    records = store.online(*EVERYBODY)
    forgotten(store)
    store.etl()
    after = readable(store)
    assert {ref.table_version for ref in after.values()} == {2, 1}
    for view in ("spend", "newest"):
        assert content(store, after[view]) == others(tables[view])
    assert content(store, after["takings"]) == tables["takings"]
    him = EVERYBODY.index(("né", 17))
    assert store.online(*EVERYBODY) == [*records[:him], None, *records[him + 1 :]]
    built = store.training_set(labels(("né", 17), ("a", 17))).table
    assert built.select(["spent", "last_shop"]).to_pylist() == [
        {"spent": None, "last_shop": None},
        {"spent": None, "last_shop": "shop 2"},
    ]


@pytest.mark.parametrize("name", ["client", "customer"])
@pytest.mark.parametrize("keys", [("bank", "client"), ("client", "bank")], ids="_".join)
def test_he_does_not_come_back_under_another_name_or_another_order_of_his_keys(
    store: Store, name: str, keys: tuple[str, str]
) -> None:
    forgotten(store)
    types = {"bank": JoinKey("bank", "string"), "client": JoinKey("client", "int64")}
    store.apply(
        Entity(name=name, join_keys=tuple(types[key] for key in keys)),
        *(
            replace(d, entity=name) if isinstance(d, FeatureView) and d.entity == "client" else d
            for d in DEFINITIONS[1:]
        ),
    )
    store.etl()
    after = readable(store)
    for view in ("spend", "newest"):
        tables = content(store, after[view])
        assert others(tables) == tables
        assert sum(len(table) for table in tables) == (len(EVERYBODY) - 1) * 4
    assert (find(store, name).tables, find(store, name).spaces) == ((), ())


@pytest.mark.parametrize("is_renamed", [True, False])
def test_he_leaves_views_from_before_his_entity_was_renamed_but_not_those_of_another_one(
    store: Store, is_renamed: bool
) -> None:
    customer = replace(DEFINITIONS[0], name="customer")
    visits = FeatureView(
        name="visits",
        entity="customer",
        source="payments",
        aggregations=(Aggregation(function="count", over="3d", name="visits"),),
    )
    store.apply(*DEFINITIONS, customer, visits)
    store.etl()
    if is_renamed:
        store.apply(DEFINITIONS[2], customer, visits)
    before = content(store, readable(store)["visits"])
    held = forgotten(store, "customer" if is_renamed else "client")
    assert {table.ref.view for table in held.tables} >= {"newest", "spend"}
    after = content(store, readable(store)["visits"])
    assert after == (others(before) if is_renamed else before)


def test_another_entity_that_was_there_beside_his_keeps_its_own_when_his_is_removed(
    store: Store,
) -> None:
    customer = replace(DEFINITIONS[0], name="customer")
    views = [
        replace(d, entity="customer") if isinstance(d, FeatureView) and d.entity == "client" else d
        for d in DEFINITIONS[1:]
    ]
    store.apply(*DEFINITIONS, customer)
    forgotten(store)
    store.apply(customer, *views)
    store.etl()
    assert sum(map(len, content(store, readable(store)["spend"]))) == len(EVERYBODY) * 4


def rebuilt(store: Store, built: TrainingSet) -> pa.Table:
    return store.rebuilt(built, built.table.select(["bank", "client", "at"]))


def test_what_killed_processes_left_goes_where_everywhere_is_asked(store: Store) -> None:
    places = store.services.root / "training_sets/.drafts", store.services.places.staging
    with staging_folder(places[0]) as under_way:
        for place in places:
            (place / "killed").mkdir(parents=True)
            pq.write_table(labels(("né", 17)), place / "killed/data.parquet")
        forgotten(store, everywhere=True)
        assert under_way.is_dir()
        assert not [file for place in places for file in place.rglob("*.parquet")]


def test_an_unfinished_file_goes_unless_a_run_writes_it_now(store: Store) -> None:
    ref = readable(store)["spend"]
    table = store.services.offline.open(ref)
    bucket = next(one.bucket for one in find(store).tables if one.ref == ref)
    (whole,) = (file.path for file in table.files_of(bucket))
    killed = whole.with_name("part-killed.parquet")
    killed.write_bytes(whole.read_bytes()[:-8])
    with store.services.catalog.transaction() as session:
        runs.begin(session, "etl-1", "spend", ref.version, person="ana", as_of_us=0)
    assert find(store).old_files == ()
    with store.services.catalog.transaction() as session:
        runs.fail(session, "etl-1", "spend", ref.version, {"code": "x"})
    assert [(file.path, file.rows) for file in find(store).old_files] == [(killed, None)]
    forgotten(store, everywhere=True)
    assert not killed.exists()


def test_he_is_not_said_to_be_gone_while_a_readable_file_is_damaged(store: Store) -> None:
    ref = readable(store)["spend"]
    bucket = next(one.bucket for one in find(store).tables if one.ref == ref)
    (file,) = store.services.offline.open(ref).files_of(bucket)
    content = file.path.read_bytes()
    file.path.write_bytes(content[:-8])
    with pytest.raises(OfflineTableUnreadable, match="'spend' cannot be read"):
        forgotten(store)
    file.path.write_bytes(content)
    assert forgotten(store).tables
    assert find(store).tables == ()


def test_of_two_that_are_forgotten_at_once_one_waits_for_the_other(store: Store) -> None:
    folder = store.services.root / "training_sets"
    her = {"bank": "né", "client": "3"}

    def forget_her() -> None:
        forget(
            store.services,
            store.admin,
            folder,
            lambda: find(store, "client", None, **her),
            everywhere=True,
        )

    with ThreadPoolExecutor(1) as pool:
        started: list[Future[None]] = []

        def found_and_the_other_begun() -> Held:
            held = find(store)
            if not started:
                started.append(pool.submit(forget_her))
                time.sleep(0.1)
            assert not started[0].done()
            return held

        forget(store.services, store.admin, folder, found_and_the_other_begun, everywhere=True)
        started[0].result()
    for key in (HIM, her):
        left = find(store, "client", None, **key)
        assert (left.tables, left.spaces, left.old_files) == ((), (), ())
    assert None not in store.online(("a", 17))


def test_a_training_set_that_no_kill_let_be_recorded_goes_where_everywhere_is_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store.training_set(labels(("a", 17)))

    rename = Path.rename

    def renamed_and_killed(path: Path, target: Path) -> None:
        rename(path, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed_and_killed)
        with pytest.raises(KeyboardInterrupt):
            store.training_set(labels(("né", 17)))
    assert len(list(store.training_sets.glob("set-*"))) == 2
    forgotten(store, everywhere=True)
    assert list(store.training_sets.glob("set-*")) == [kept.path]


def test_a_training_set_that_is_recorded_after_the_search_is_searched_too(store: Store) -> None:
    late: list[TrainingSet] = []

    def found_before_it_is_built() -> Held:
        held = find(store)
        if not held.tables and not late:
            late.append(store.training_set(labels(("né", 17), ("né", 3))))
        return held

    folder = store.services.root / "training_sets"
    forget(store.services, store.admin, folder, found_before_it_is_built, everywhere=True)
    (built,) = late
    assert pq.read_table(built.path / "data.parquet").column("client").to_pylist() == [3]
    with pytest.raises(TrainingSetNotRebuildable):
        rebuilt(store, built)


def test_older_versions_and_training_sets_have_him_until_everywhere_is_asked(store: Store) -> None:
    his = store.training_set(labels(("a", 17), ("né", 17), ("né", 3)))
    other = store.training_set(labels(("a", 17), ("né", 3)))
    forgotten(store)
    planned = find(store)
    assert [(one.id, one.rows, one.pinned) for one in planned.training_sets] == [
        (his.manifest.id, 1, True),
        (other.manifest.id, 0, True),
    ]
    assert [(file.view, file.rows, file.pinned) for file in planned.old_files] == [
        ("newest", 4, True),
        ("spend", 4, True),
    ]
    assert rebuilt(store, his).equals(his.table)

    forgotten(store, everywhere=True)

    found = find(store)
    assert found.old_files == ()
    assert [one for one in found.training_sets if one.rows or one.pinned] == []
    for path in store.services.root.rglob("*.parquet"):
        if path.name != "payments.parquet":
            names = pq.read_schema(path).names
            rows = pq.read_table(path, partitioning=None)
            if {"bank", "client"} <= set(names):
                assert [rows] == others([rows]), path
    with pytest.raises(TrainingSetNotRebuildable, match="cannot be built again"):
        rebuilt(store, his)
    with store.services.catalog.reading() as session, pytest.raises(TrainingSetNotRebuildable):
        open_training_set(session, his.path.parent, his.manifest.id, "scoring")
    assert pq.read_table(his.path / "data.parquet").equals(his.table.take([0, 2]))
    # Who never had him in it is built again as before.
    assert rebuilt(store, other).equals(other.table)
    with store.services.catalog.reading() as session:
        assert [pin.holder for pin in pins_of_training_sets(session)] == [
            f"training set {other.manifest.id}"
        ]


def test_files_that_no_training_set_needs_go_whole(store: Store) -> None:
    store.etl()
    first = find(store).old_files
    assert {file.pinned for file in first} == {False}
    forgotten(store, everywhere=True)
    assert not any(file.path.exists() for file in first)
    services = store.services
    plan = plan_vacuum(
        services.catalog, store.admin, services.offline, pins_of_training_sets, keep_us=0
    )
    vacuum(
        services.catalog,
        store.admin,
        services.offline,
        services.online,
        pins_of_training_sets,
        plan,
    )
    assert len(content(store, readable(store)["spend"])) > 0


def test_he_is_found_though_the_tables_of_an_old_training_set_are_gone(store: Store) -> None:
    built = store.training_set(labels(("né", 17)))
    store.etl()
    lost = [replace(ref, table_version=99) for ref in built.manifest.tables]
    with store.services.catalog.transaction() as session:
        row = session.get_one(TrainingSetRow, built.manifest.id)
        row.manifest = {**row.manifest, "tables": msgspec.to_builtins(lost)}
    forgotten(store, everywhere=True)
    assert find(store).training_sets == ()


def test_a_readable_version_that_is_not_the_newest_is_the_one_that_is_rewritten(
    store: Store,
) -> None:
    ref = readable(store)["newest"]
    tables = content(store, ref)
    foreign = tables[0].slice(0, 1)
    store.services.offline.write_bucket(ref, 0, foreign)  # a run that failed its checks
    forgotten(store)
    assert content(store, readable(store)["newest"]) == others(tables)


def test_while_a_view_is_computed_he_is_noted_and_the_rest_waits(store: Store) -> None:
    ref = readable(store)["spend"]
    with store.services.catalog.transaction() as session:
        runs.begin(session, "etl-1", "spend", ref.version, person="ana", as_of_us=0)
    assert find(store).computing == ("spend",)
    with pytest.raises(BeingComputed, match="spend"):
        forgotten(store)
    with store.services.catalog.transaction() as session:
        runs.fail(session, "etl-1", "spend", ref.version, {"code": "x"})
    store.etl()
    assert find(store).tables == ()
    assert store.online(("né", 17)) == [None]
    forgotten(store)
    assert store.online(("né", 17)) == [None]


def test_what_is_published_again_meanwhile_does_not_bring_him_back(store: Store) -> None:
    online = InterruptedStore()
    store = replace(store, services=replace(store.services, online=online))
    store.publish()
    paused, go = threading.Event(), threading.Event()
    published: list[Future[None]] = []

    def waits() -> None:
        paused.set()
        assert go.wait(30)

    with ThreadPoolExecutor(1) as pool:

        def begins_to_publish() -> None:
            online.before_put = waits
            published.append(pool.submit(store.publish, "spend"))
            assert paused.wait(30)

        online.before_delete = begins_to_publish
        try:
            with pytest.raises(BeingComputed, match="spend began to be published again"):
                forgotten(store)
        finally:
            go.set()
        published[0].result()
    assert store.online(("né", 17)) == [None]
    forgotten(store)
    assert (find(store).tables, find(store).spaces) == ((), ())


def test_a_kill_in_the_middle_is_finished_by_the_same_command(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = store.training_set(labels(("né", 17), ("né", 3)))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("rewritten", "rewrite_without", "note_done"):
        monkeypatch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            forgotten(store, everywhere=True)
        monkeypatch.undo()
        assert store.online(("né", 17)) == [None]
    forgotten(store, everywhere=True)
    found = find(store)
    assert (found.tables, found.spaces, found.old_files, found.training_sets) == ((), (), (), ())
    with pytest.raises(TrainingSetNotRebuildable):
        rebuilt(store, built)


def test_the_plan_changes_nothing_and_the_catalog_never_learns_the_key(store: Store) -> None:
    before, online = readable(store), store.online(("né", 17))
    held = find(store)
    assert find(store) == held
    assert readable(store) == before
    assert store.online(("né", 17)) == online
    forgotten(store)
    with store.services.catalog.engine.connect() as connection:
        for table in inspect(store.services.catalog.engine).get_table_names():
            for row in connection.execute(text(f"SELECT * FROM {table}")).all():
                assert "né" not in str(row), table
        digests = connection.execute(text("SELECT digest FROM forgotten")).scalars().all()
    assert digests == [held.digest]
    with store.services.catalog.reading() as session:
        entries = audit.entries(session, kind="entity", subject="client")
    done = [(entry.actor, entry.action) for entry in entries if "digest" in entry.detail]
    assert done == [("admin", "removed"), ("admin", "forgot")]


def test_wrong_keys_and_people_are_refused(store: Store) -> None:
    with pytest.raises(BadKey, match="identified by bank, client"):
        find(store, client="17")
    for number in ("x", "9223372036854775808"):
        with pytest.raises(BadKey, match="no int64"):
            find(store, bank="a", client=number)
    with pytest.raises(BadKey, match="no string"):
        find(store, bank="\udcff", client="17")
    with pytest.raises(EntityNotFound, match="did you mean 'client'"):
        find(store, "cliemt")
    with pytest.raises(NotAllowed, match="data-engineer"):
        find(store, actor=Actor("eva", frozenset({Role.ANALYST})))
    nobody = find(store, bank="b", client="17")
    assert (nobody.tables, nobody.spaces, nobody.training_sets) == ((), (), ())


def test_he_leaves_versions_of_a_view_that_are_not_active_too(store: Store) -> None:
    old = readable(store)["newest"]
    (view,) = (d for d in DEFINITIONS if isinstance(d, FeatureView) and d.name == "newest")

    changed = replace(view, ttl="9000d")
    store.apply(*(changed if d is view else d for d in DEFINITIONS))
    store.etl()
    forgotten(store)
    assert readable(store)["newest"].version != old.version
    with store.services.catalog.reading() as session:
        ref, _ = runs.readable_table(session, "newest", old.version)
    assert content(store, ref) == others(content(store, old))
    space = f"newest.{old.version}"
    assert store.services.online.get([(space, encode_key(["né", 17]))]) == [None]


def test_a_lost_table_keeps_nobody_from_being_forgotten_but_where_a_run_repairs_it(
    store: Store,
) -> None:
    old = readable(store)["newest"]
    (view,) = (d for d in DEFINITIONS if isinstance(d, FeatureView) and d.name == "newest")
    changed = replace(view, ttl="9000d")
    store.apply(*(changed if d is view else d for d in DEFINITIONS))
    store.etl()
    new, offline = readable(store)["newest"], store.services.offline
    shutil.rmtree(offline.folder_of("newest", old.version))
    assert {table.ref.version for table in find(store).tables if table.ref.view == "newest"} == {
        new.version
    }
    shutil.rmtree(offline.folder_of("newest", new.version))
    with pytest.raises(OfflineTableUnreadable, match="'newest' cannot be read") as caught:
        forgotten(store)
    assert caught.value.hint == "run 'konveyer etl run newest' to write a new version"
    store.etl()
    forgotten(store)
    assert find(store).tables == ()
