"""Upkeep of offline tables: what is pinned stays, cell for cell, and the rest goes."""

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session

from konveyer import Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import Held, find_entity
from konveyer.feature_store.datamart.kept_rows import TrainingSetNotFound, TrainingSetNotRebuildable
from konveyer.feature_store.datamart.kept_sets import (
    TrainingSetInUse,
    list_training_sets,
    pins_of_training_sets,
    remove_training_set,
)
from konveyer.feature_store.datamart.manifest import TrainingSet
from konveyer.feature_store.etl import vacuum as module
from konveyer.feature_store.etl.pins import Pin
from konveyer.feature_store.etl.runs import begin, readable_table
from konveyer.feature_store.etl.vacuum import TableVacuum, plan_vacuum, vacuum
from konveyer.feature_store.offline import layout
from konveyer.feature_store.offline.delta import DeltaOfflineStore, StoredTable
from konveyer.feature_store.offline.files import OutsideTable, remove_files
from konveyer.feature_store.offline.table_version import OfflineTableUnreadable, TableRef
from konveyer.feature_store.registry.errors import FeatureViewNotFound
from konveyer.feature_store.registry.lookup import active_state, compiled_view
from tests.support import quick_of
from tests.unit.etl.store import Store, opened_store

HOUR_US = 3_600_000_000
CLIENT = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
VISITS = Source(name="visits", path="visits.parquet", event_time="visited_at")
NEWEST = FeatureView(
    name="newest",
    entity="client",
    sql="SELECT client, visited_at AS event_time, shop FROM visits",
    features=(Feature(name="shop", dtype="string", one_of=("a", "b", "c", "d")),),
    accuracy="exact",
)
SCORING = FeatureService(name="scoring", features=("newest",))


@pytest.fixture
def store(
    catalog: Catalog, admin: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 20)
    write_visits(tmp_path, "a")
    with opened_store(catalog, admin, tmp_path, now="2026-02-01T00:00:00Z") as store:
        store.apply(CLIENT, VISITS, NEWEST, SCORING)
        yield store


def write_visits(root: Path, shop: str, clients: int = 30) -> None:
    at = pa.array(["2026-01-05T00:00:00"] * clients).cast(pa.timestamp("us"))
    rows = {"client": list(range(clients)), "visited_at": at, "shop": [shop] * clients}
    pq.write_table(pa.table(rows), root / "visits.parquet")


def labels(*clients: int) -> pa.Table:
    at = pa.array(["2026-01-10T00:00:00"] * len(clients)).cast(pa.timestamp("us"))
    return pa.table({"client": pa.array(clients, pa.int64()), "at": at})


def content(offline: DeltaOfflineStore, ref: TableRef) -> pa.Table:
    table = offline.open(ref)
    return pa.concat_tables([table.read(bucket).table for bucket in range(ref.buckets)])


def readable(store: Store) -> TableRef:
    with store.services.catalog.reading() as session:
        version = next(
            v for (_, name), v in active_state(session).versions.items() if name == "newest"
        )
        return readable_table(session, "newest", version)[0]


@dataclass
class Upkeep:
    """Vacuum of a store, with pins of training sets and of releases that the test names."""

    store: Store
    releases: list[Pin] = field(default_factory=list)

    def pins(self, session: Session) -> list[Pin]:
        return [*pins_of_training_sets(session), *self.releases]

    def plan(self, *views: str, keep_us: int = 0) -> list[TableVacuum]:
        services = self.store.services
        return plan_vacuum(
            services.catalog,
            self.store.admin,
            services.offline,
            self.pins,
            views=views,
            keep_us=keep_us,
        )

    def vacuum(self, *views: str, keep_us: int = 0) -> list[TableVacuum]:
        services, plan = self.store.services, self.plan(*views, keep_us=keep_us)
        vacuum(
            services.catalog,
            self.store.admin,
            services.offline,
            services.online,
            self.pins,
            plan,
        )
        return plan

    def remove(self, training_set: str) -> None:
        services = self.store.services
        remove_training_set(
            services.catalog,
            self.store.admin,
            services.root / "training_sets",
            training_set,
            lambda _: self.releases,
        )


def data_files(store: Store) -> set[Path]:
    return set((store.services.root / "offline").rglob("*.parquet"))


@pytest.mark.parametrize("seed", quick_of(range(4), 2))
def test_whatever_happens_every_pinned_version_stays_cell_for_cell(store: Store, seed: int) -> None:
    """Random writes (also ones that fail their checks), pins, unpins and vacuums."""
    choice, upkeep, offline = random.Random(seed), Upkeep(store), store.services.offline
    store.etl()
    sets: dict[str, tuple[TrainingSet, pa.Table]] = {}
    held: list[tuple[Pin, pa.Table]] = []
    now = content(offline, readable(store))
    for _ in range(25):
        match choice.choice(["write", "write", "fail", "build", "remove", "release", "vacuum"]):
            case "write":
                write_visits(store.services.root, choice.choice("abcd"), choice.randint(1, 90))
                store.etl()
                now = content(offline, readable(store))
            case "fail":
                write_visits(store.services.root, "refused")
                with pytest.raises(KonveyerError, match="refused"):
                    store.etl()
            case "build":
                built = store.training_set(labels(0, 1, 2))
                sets[built.manifest.id] = (built, now)
            case "remove" if sets:
                gone = choice.choice(sorted(sets))
                upkeep.remove(gone)
                del sets[gone]
            case "release":
                pin = Pin(holder="release r", training_set=None, tables=(readable(store),))
                held = [*held, (pin, now)] if choice.random() < 0.6 else held[1:]
                upkeep.releases = [pin for pin, _ in held]
            case "vacuum":
                for path in data_files(store):
                    os.utime(path, (0, 0))
                upkeep.vacuum()
        assert content(offline, readable(store)).equals(now)
        for pin, kept in held:
            assert content(offline, pin.tables[0]).equals(kept)
        for built, kept in sets.values():
            assert content(offline, built.manifest.tables[0]).equals(kept)
            assert rebuilt(store, built).equals(built.table)
    upkeep.vacuum()
    refs = [readable(store), *(pin.tables[0] for pin, _ in held)]
    refs += [built.manifest.tables[0] for built, _ in sets.values()]
    needed = {file.path for ref in refs for fs in offline.open(ref).files.values() for file in fs}
    (table,) = offline.stored()
    assert table.newest is not None
    newest = replace(refs[0], table_version=table.newest)
    needed |= {file.path for fs in offline.open(newest).files.values() for file in fs}
    assert data_files(store) == needed
    assert not any(one.changes for one in upkeep.plan())


@pytest.mark.parametrize("seed", quick_of(range(4), 2))
def test_whatever_happens_who_is_forgotten_stays_so_and_others_stay(
    store: Store, seed: int
) -> None:
    """Random writes, training sets, vacuums and forgettings, against what should be there."""
    choice, upkeep, services = random.Random(seed), Upkeep(store), store.services
    store.etl()
    clients, shop = set(range(30)), "a"
    gone: set[int] = set()
    sets: list[tuple[TrainingSet, set[int], set[int]]] = []
    for _ in range(20):
        match choice.choice(["write", "fail", "build", "vacuum", "forget", "everywhere"]):
            case "write":
                shop, count = choice.choice("abcd"), choice.randint(1, 90)
                write_visits(services.root, shop, count)
                store.etl()
                clients = set(range(count)) - gone
            case "fail":
                write_visits(services.root, "refused")
                with contextlib.suppress(KonveyerError):  # when everybody is forgotten it passes
                    store.etl()
            case "build":
                asked = set(choice.sample(range(20), 3))
                built = store.training_set(labels(*sorted(asked)))
                sets.append((built, asked, set(clients)))
            case "vacuum":
                upkeep.vacuum()
            case how:
                him = choice.randrange(20)
                gone.add(him)
                clients.discard(him)
                forgotten(store, him, everywhere=how == "everywhere")
                if how == "everywhere":
                    sets = [(built, asked, held - {him}) for built, asked, held in sets]
                    for built, asked, _ in sets:
                        if him in asked:
                            with pytest.raises(TrainingSetNotRebuildable):
                                rebuilt(store, built)
                    sets = [one for one in sets if him not in one[1]]
        found = content(services.offline, readable(store))
        assert sorted(found["client"].to_pylist()) == sorted(clients)
        assert set(found["shop"].to_pylist()) <= {shop}
        for built, _, held in sets:
            kept = content(services.offline, built.manifest.tables[0])
            assert sorted(kept["client"].to_pylist()) == sorted(held)
            assert rebuilt(store, built).equals(built.table)
        online = store.online(*((client,) for client in sorted(clients | gone)))
        for client, row in zip(sorted(clients | gone), online, strict=True):
            assert (row is None) == (client in gone)


def forgotten(store: Store, client: int, *, everywhere: bool) -> None:
    services, folder = store.services, store.services.root / "training_sets"

    def find() -> Held:
        return find_entity(services, store.admin, folder, "client", {"client": str(client)})

    forget(services, store.admin, folder, find, everywhere=everywhere)


def rebuilt(store: Store, built: TrainingSet) -> pa.Table:
    return store.rebuilt(built, built.table.select(["client", "at"]))


def test_a_reader_under_way_goes_on_for_as_long_as_is_kept(store: Store) -> None:
    store.etl()
    offline, before = store.services.offline, readable(store)
    reader = offline.open(before)
    write_visits(store.services.root, "b")
    store.etl()
    (plan,) = Upkeep(store).vacuum(keep_us=HOUR_US)
    assert plan.files == ()
    assert [one.table_version for one in plan.kept] == [0, 1]
    assert reader.read(0).table["shop"].to_pylist()[0] == "a"
    (plan,) = Upkeep(store).vacuum(keep_us=0)
    assert len(plan.files) == 2
    assert plan.size_bytes > 0
    with pytest.raises(OfflineTableUnreadable, match="konveyer etl run"):
        reader.read(0)


def test_runs_that_end_while_a_vacuum_plans_and_works_lose_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(shop: str) -> None:
        write_visits(store.services.root, shop)
        store.etl()

    computed("a")
    computed("b")
    listed = DeltaOfflineStore.stored

    def overtaken(offline: DeltaOfflineStore) -> list[StoredTable]:
        found = listed(offline)
        computed("c")
        return found

    monkeypatch.setattr(DeltaOfflineStore, "stored", overtaken)
    upkeep, services = Upkeep(store), store.services
    plan = upkeep.plan()
    monkeypatch.undo()
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 20)
    built = store.training_set(labels(1))
    computed("d")
    vacuum(services.catalog, store.admin, services.offline, services.online, upkeep.pins, plan)
    assert plan[0].files != ()
    assert set(content(services.offline, readable(store))["shop"].to_pylist()) == {"d"}
    assert rebuilt(store, built).equals(built.table)
    assert built.table["shop"].to_pylist() == ["c"]


def test_a_dry_run_removes_nothing_and_says_what_a_run_does(store: Store) -> None:
    for shop in "abc":
        write_visits(store.services.root, shop)
        store.etl()
    upkeep, before = Upkeep(store), data_files(store)
    (planned,) = upkeep.plan()
    assert data_files(store) == before
    assert upkeep.vacuum() == [planned]
    assert before - data_files(store) == set(planned.files)
    assert len(planned.files) == 4
    with store.services.catalog.reading() as session:
        (entry, *_) = audit.entries(session, kind="view", subject="newest")
    assert (entry.actor, entry.action, entry.detail["files"]) == ("admin", "vacuumed", 4)
    assert entry.detail["kept"] == [2]


def test_only_those_views_and_only_by_those_who_may(store: Store) -> None:
    store.etl()
    upkeep = Upkeep(store)
    with pytest.raises(FeatureViewNotFound, match="did you mean 'newest'"):
        upkeep.plan("newst")
    assert [table.view for table in upkeep.plan("newest")] == ["newest"]
    eva = Actor("eva", frozenset({Role.ANALYST}))
    with pytest.raises(NotAllowed):
        Upkeep(replace(store, admin=eva)).plan()


def test_a_vacuum_that_was_killed_is_finished_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shop in "ab":
        write_visits(store.services.root, shop)
        store.etl()

    def killed(folder: Path, paths: tuple[Path, ...]) -> None:
        remove_files(folder, paths[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "remove_files", killed)
    with pytest.raises(KeyboardInterrupt):
        Upkeep(store).vacuum()
    monkeypatch.undo()
    (plan,) = Upkeep(store).vacuum()
    assert len(plan.files) == 1
    (plan,) = Upkeep(store).plan()
    assert not plan.changes
    assert len(data_files(store)) == 2


def test_files_of_killed_writers_go_after_a_day_and_files_that_vanish_are_no_error(
    store: Store,
) -> None:
    store.etl()
    (table,) = store.services.offline.stored()
    folder = store.services.offline.folder_of("newest", table.version) / "bucket=0"
    young, old = folder / "young.parquet", folder / "old.parquet"
    for path in (young, old):
        path.write_bytes(b"half a file")
    day_ago = time.time() - 25 * 3600
    os.utime(old, (day_ago, day_ago))
    (plan,) = Upkeep(store).plan()
    assert plan.files == (old,)
    old.unlink()
    remove_files(folder, plan.files)
    assert young.exists()
    outside = folder.parent.parent / "x"
    with pytest.raises(OutsideTable):
        remove_files(folder, [folder / ".." / ".." / "x", outside])


def test_what_else_lies_in_the_folder_is_left_alone(store: Store) -> None:
    store.etl()
    data = store.services.root / "offline" / "raw" / "2026" / "day.parquet"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"somebody else's")
    os.utime(data, (0, 0))
    Upkeep(store).vacuum()
    assert data.exists()


def test_a_view_that_is_being_computed_is_left_alone(store: Store) -> None:
    for shop in "ab":
        write_visits(store.services.root, shop)
        store.etl()
    with store.services.catalog.transaction() as session:
        begin(session, "etl-1", "newest", readable(store).version, person="ana", as_of_us=0)
    (plan,) = Upkeep(store).vacuum()
    assert plan.skipped is not None
    assert "being computed" in plan.skipped
    assert len(data_files(store)) == 4


def test_a_table_with_a_pinned_version_that_cannot_be_read_is_left_alone(store: Store) -> None:
    for shop in "ab":
        write_visits(store.services.root, shop)
        store.etl()
    lost = replace(readable(store), table_version=77)
    pin = Pin(holder="release r", training_set=None, tables=(lost,))
    (plan,) = Upkeep(store, [pin]).vacuum()
    assert plan.skipped is not None
    assert "Version 77" in plan.skipped
    assert len(data_files(store)) == 4


def test_tables_and_records_of_versions_that_nothing_refers_to_go_whole(store: Store) -> None:
    store.etl()
    old, upkeep = readable(store), Upkeep(store)
    built = store.training_set(labels(1))
    pin = Pin(
        holder="release r",
        training_set=built.manifest.id,
        tables=built.manifest.tables,
        views=(("newest", old.version),),
    )
    upkeep.releases = [pin]
    online = store.services.online
    (space,) = (view.space for view in built.manifest.service.views)
    key = space_key(1)
    assert online.get([(space, key)]) != [None]
    store.apply(CLIENT, VISITS, replace(NEWEST, ttl="9000d"), SCORING)
    store.etl()
    upkeep.vacuum()
    assert content(store.services.offline, old).num_rows == 30
    with pytest.raises(TrainingSetInUse, match="release r"):
        upkeep.remove(built.manifest.id)
    upkeep.releases = []
    upkeep.remove(built.manifest.id)
    assert not built.path.exists()
    assert not any(one.drop for one in upkeep.vacuum(keep_us=HOUR_US))
    dropped = [one for one in upkeep.vacuum() if one.drop]
    assert [(one.view, one.version) for one in dropped] == [("newest", old.version)]
    assert online.get([(space, key)]) == [None]
    assert [table.version for table in store.services.offline.stored()] == [readable(store).version]
    # Applied again it is simply not computed yet.
    store.apply(CLIENT, VISITS, NEWEST, SCORING)
    with pytest.raises(KonveyerError, match="no computed values yet"):
        store.training_set(labels(1))
    store.etl()
    assert store.training_set(labels(1)).table["shop"].to_pylist() == ["a"]


def space_key(client: int) -> bytes:
    from konveyer.feature_store.online.codec import encode_key

    return encode_key([client])


def test_training_sets_are_listed_with_what_they_hold(store: Store) -> None:
    store.etl()
    built = store.training_set(labels(1, 2))
    pin = Pin(holder="release r", training_set=built.manifest.id, tables=())
    with store.services.catalog.reading() as session:
        (kept,) = list_training_sets(session, [pin])
    assert (kept.id, kept.rows, kept.used_by) == (built.manifest.id, 2, ("release r",))
    assert kept.tables == built.manifest.tables
    upkeep = Upkeep(store)
    with pytest.raises(TrainingSetNotFound):
        upkeep.remove("set-unknown")
    upkeep.remove(built.manifest.id)
    with store.services.catalog.reading() as session:
        assert list_training_sets(session, []) == []
        (entry, *_) = audit.entries(session, kind="training set")
    assert (entry.action, entry.subject) == ("removed", built.manifest.id)
    # Killed between the catalog and the folder, the removal is finished by doing it again.
    built.path.mkdir()
    upkeep.remove(built.manifest.id)
    assert not built.path.exists()


def test_the_log_holds_no_values_and_is_never_shortened(store: Store) -> None:
    for _ in range(3):
        store.etl()
    (table,) = store.services.offline.stored()
    log = store.services.offline.folder_of("newest", table.version) / "_delta_log"
    text = "".join(path.read_text() for path in log.glob("*.json"))
    assert "numRecords" in text
    assert "minValues" not in text
    assert compiled_columns(store) == ["shop"]
    assert 'shop\\":\\"a' not in text


def compiled_columns(store: Store) -> list[Any]:
    with store.services.catalog.reading() as session:
        compiled = compiled_view(session, "newest", readable(store).version)
    return [column.name for column in compiled.columns]
