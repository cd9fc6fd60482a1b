"""A training set whose labels and rows stay in files is the one that fits in memory."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    JoinKey,
    OnDemandView,
    RequestField,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core import digests
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart import label_files, pieces
from konveyer.feature_store.datamart.entities import cadence
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import find_entity
from konveyer.feature_store.datamart.join import BucketRead
from konveyer.feature_store.datamart.kept_rows import kept_labels, open_training_set
from konveyer.feature_store.datamart.label_files import LabelFiles, labels_at
from konveyer.feature_store.datamart.manifest import OutputExists, TrainingSet
from konveyer.feature_store.datamart.training_set import (
    TrainingSetDiffers,
    entity_frame,
    explain_training_set,
)
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.offline import delta, layout
from tests.unit.etl.store import Store, opened_store

DAY_US = 86_400_000_000
START_US = parse_instant("2026-01-01T00:00:00Z")
SHOPS = ("né", "a", "", "1:a")


def shares(asked, spent):  # type: ignore[no-untyped-def]
    return {"share": asked / spent}


def twice(asked):  # type: ignore[no-untyped-def]
    return {"twice": 2 * asked}


DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Entity(name="shop", join_keys=(JoinKey("shop", "string"),)),
    Entity(name="visitor", join_keys=(JoinKey("client", "int64"), JoinKey("shop", "string"))),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(
            Aggregation(column="amount", function="sum", over="3d", name="spent"),
            Aggregation(column="paid_at", function="max", over="unbounded", name="newest"),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="takings",
        entity="shop",
        sql="SELECT shop, paid_at AS event_time, amount AS last_amount, shop AS name FROM payments",
        features=(Feature(name="last_amount", dtype="int64"), Feature(name="name", dtype="string")),
        accuracy="exact",
    ),
    FeatureView(
        name="visits",
        entity="visitor",
        source="payments",
        aggregations=(Aggregation(function="count", over="9d", name="visits"),),
        accuracy="exact",
    ),
    OnDemandView(
        name="now",
        function=shares,
        request=(RequestField("asked", "float64"),),
        inputs=("spend:spent",),
        features=(Feature(name="share", dtype="float64"),),
    ),
    OnDemandView(
        name="alone",
        function=twice,
        request=(RequestField("asked", "float64"),),
        inputs=(),
        features=(Feature(name="twice", dtype="float64"),),
    ),
    FeatureService(name="asked", features=("alone",)),
    FeatureService(name="scoring", features=("visits", "spend:newest", "now", "takings")),
)


@pytest.fixture
def store(
    catalog: Catalog, admin: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Several buckets; blocks of 40 rows; more than 100 labels stay in files."""
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 300)
    monkeypatch.setattr(digests, "BLOCK_ROWS", 40)
    monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", 100)
    random = np.random.default_rng(3)
    payments = {
        "client": random.integers(0, 60, 1_000),
        "shop": [SHOPS[n] for n in random.integers(0, 4, 1_000)],
        "paid_at": moments(random.integers(0, 24 * 20, 1_000)),
        "amount": random.integers(1, 99, 1_000),
    }
    pq.write_table(pa.table(payments), tmp_path / "payments.parquet")
    with opened_store(catalog, admin, tmp_path, now="2026-02-01T00:00:00Z") as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store


def moments(hours: Any) -> pa.Array:
    return pa.array(START_US + np.asarray(hours) * DAY_US // 24, pa.timestamp("us"))


def labels(rows: int = 230) -> pa.Table:
    """Narrow types, a nanosecond time, and keys that have other names."""
    random = np.random.default_rng(4)
    return pa.table(
        {
            "who": pa.array(random.integers(0, 70, rows), pa.int32()),
            "shop": pa.array([SHOPS[n] for n in random.integers(0, 4, rows)]).dictionary_encode(),
            "at": moments(random.integers(0, 24 * 25, rows)).cast(pa.timestamp("ns")),
            "asked": pa.array(random.integers(0, 9, rows), mask=random.random(rows) < 0.1),
            "row": np.arange(rows),
            "bought": random.integers(0, 2, rows),
        }
    )


def in_files(folder: Path, frame: pa.Table, *cuts: int) -> LabelFiles:
    folder.mkdir()
    bounds = [0, *cuts, len(frame)]
    for number, (start, end) in enumerate(pairwise(bounds)):
        part = frame.slice(start, end - start)
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=17)
    found = labels_at(folder)
    assert isinstance(found, LabelFiles)
    return found


def built(store: Store, frame: pa.Table | LabelFiles, **options: Any) -> TrainingSet:
    return store.training_set(frame, label="bought", columns={"client": "who"}, **options)


def test_rows_and_digests_are_those_of_the_same_labels_in_memory(
    store: Store, tmp_path: Path
) -> None:
    frame = labels()
    expected = built(store, frame)
    large = built(store, in_files(tmp_path / "labels", frame, 0, 3, 90))
    assert large.held is None
    assert large.table.equals(expected.table)
    assert large.column_names == expected.column_names
    assert large.read(["row"])["row"].to_pylist() == list(range(230))
    for name in ("labels_digest", "result_digest", "rows", "keys", "tables"):
        assert getattr(large.manifest, name) == getattr(expected.manifest, name)
    data = large.path / "data.parquet"
    assert {path.name for path in large.path.iterdir()} == {"data.parquet", "manifest.json"}
    rows = [pq.read_metadata(path).num_rows for path in sorted(data.iterdir())]
    assert rows == [40, 40, 40, 40, 40, 30]
    assert pq.read_table(data).equals(expected.table)
    for name in expected.column_names[6:]:
        assert len(expected.table[name].drop_null()), name


def test_it_is_kept_opened_and_built_again_like_any_other(store: Store, tmp_path: Path) -> None:
    frame = labels()
    large = built(store, in_files(tmp_path / "labels", frame))
    with store.services.catalog.reading() as session:
        again = open_training_set(session, store.training_sets, large.manifest.id, "scoring")
    assert again.table.equals(large.table)
    kept = kept_labels(store.training_sets, large.manifest)
    assert isinstance(kept, LabelFiles)
    assert store.rebuilt(large, kept).equals(large.table)
    assert store.rebuilt(large, frame).equals(large.table)
    with pytest.raises(TrainingSetDiffers, match="labels are not those"):
        store.rebuilt(large, in_files(tmp_path / "others", frame.slice(1)))
    assert {path.name for path in store.training_sets.glob("[!.]*")} == {large.manifest.id}
    assert list(store.training_sets.glob(".drafts/*")) == []
    large.write_to(tmp_path / "output")
    assert pq.read_table(tmp_path / "output").equals(large.table)
    with pytest.raises(OutputExists):
        large.write_to(tmp_path / "output")


def test_what_is_wrong_is_said_as_of_labels_in_memory_and_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    frame = labels()
    at = frame["at"].to_pylist()
    nulls = frame.set_column(2, "at", pa.array([*at[:200], *[None] * 30], pa.timestamp("ns")))
    later = pa.concat_tables([frame, frame.slice(5, 1)])
    relabelled = later.set_column(5, "bought", pa.array([*[0] * 230, 1]))
    for number, wrong in enumerate(
        (nulls, relabelled, frame.drop_columns(["asked"]), frame.rename_columns([*"abcdef"]))
    ):
        with pytest.raises(KonveyerError) as expected:
            built(store, wrong)
        with pytest.raises(KonveyerError) as caught:
            built(store, in_files(tmp_path / str(number), wrong, 100))
        assert (caught.value.code, caught.value.message) == (
            expected.value.code,
            expected.value.message,
        )
    named = frame.append_column("visits", frame["row"])
    with pytest.raises(KonveyerError, match="has a column 'visits'"):
        built(store, in_files(tmp_path / "clash", named))
    held = [path for path in store.training_sets.rglob("*") if not path.match(".drafts*")]
    assert held == []
    other = pq.read_table(tmp_path / "0" / "0.parquet").drop_columns(["row"])
    pq.write_table(other, tmp_path / "0" / "1.parquet")
    with pytest.raises(KonveyerError) as caught:
        built(store, labels_at(tmp_path / "0"))
    assert caught.value.code == "labels_unreadable"
    assert "1.parquet" in caught.value.message


def test_a_service_without_views_reads_no_bucket(store: Store, tmp_path: Path) -> None:
    frame = labels()
    expected = store.training_set(frame, service="asked")
    large = store.training_set(in_files(tmp_path / "labels", frame), service="asked")
    assert large.table.equals(expected.table)
    twice = pa.concat_tables([frame, frame.slice(5, 1)])
    with pytest.raises(KonveyerError, match=r"1 row\(s\)"):
        store.training_set(in_files(tmp_path / "twice", twice), service="asked")


def test_rows_that_only_one_of_two_entities_tells_apart_are_no_repeats(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = [(client, shop) for client in range(60) for shop in SHOPS]
    frame = pa.table(
        {
            "client": [client for client, _ in each],
            "shop": [shop for _, shop in each],
            "at": moments([24 * 19] * len(each)),
            "asked": [1.0] * len(each),
        }
    )
    large = store.training_set(in_files(tmp_path / "labels", frame))
    assert large.held is None
    assert large.table.equals(store.training_set(frame).table)
    twice = pa.concat_tables([frame, frame.slice(5, 1)])
    with pytest.raises(KonveyerError, match=r"1 row\(s\)"):
        store.training_set(in_files(tmp_path / "twice", twice))
    store.apply(*DEFINITIONS[:-1], FeatureService(name="scoring", features=("spend", "visits")))
    frames = []
    for most in (label_files.MOST_ROWS_IN_MEMORY, 1_000):
        monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", most)
        services = store.services
        with entity_frame(
            services.catalog,
            services.engine,
            services.offline,
            service="scoring",
            moments_us=cadence(START_US + 10 * DAY_US, START_US + 19 * DAY_US, 9 * DAY_US),
            staging=services.places.staging,
        ) as every:
            frames.append(store.training_set(every).table)
    order = [(name, "ascending") for name in ("at", "client", "shop")]
    in_files_rows, in_memory = (table.sort_by(order) for table in frames)
    assert len(in_memory) > 400
    assert in_files_rows.select(in_memory.column_names).equals(in_memory)


def test_explain_tells_what_it_reads(store: Store, tmp_path: Path) -> None:
    services = store.services
    costs = explain_training_set(
        services.catalog,
        store.admin,
        services.engine,
        services.offline,
        service="scoring",
        labels=in_files(tmp_path / "labels", labels()),
        timestamp="at",
        columns={"client": "who"},
        folder=store.training_sets,
    )
    assert {cost.view for cost in costs} == {"visits", "spend", "takings"}
    assert {(cost.rows, cost.read_rows) for cost in costs} == {(1_000, 1_000)}
    held = [path for path in store.training_sets.rglob("*") if not path.match(".drafts*")]
    assert held == []


def test_an_entity_is_forgotten_in_all_files_of_it(store: Store, tmp_path: Path) -> None:
    large = built(store, in_files(tmp_path / "labels", labels()))
    before, services = large.table, store.services

    def find() -> Any:
        return find_entity(services, store.admin, store.training_sets, "client", {"client": "7"})

    his = before["who"].to_numpy() == 7
    assert [one.rows for one in find().training_sets] == [his.sum()] != [0]
    forget(services, store.admin, store.training_sets, find, everywhere=True)
    assert large.table.equals(before.filter(pa.array(~his)))


def test_a_heavy_bucket_is_read_in_pieces(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = labels()
    expected = built(store, frame)
    monkeypatch.setattr(pieces, "MOST_ROWS", 50)
    monkeypatch.setattr(delta, "_ROW_GROUP_ROWS", 16)
    store.etl()
    for given in (frame, in_files(tmp_path / "labels", frame, 90)):
        reads: list[BucketRead] = []
        found = built(store, given, watch=reads.append)
        assert found.table.equals(expected.table)
        assert found.manifest.result_digest == expected.manifest.result_digest
        for view in ("spend", "visits", "takings"):
            rows = [read.rows for read in reads if read.view == view]
            assert len(rows) > 8
        # Newest rows alone need no history; shops are four heavy entities.
        assert max(read.rows for read in reads if read.view == "takings") < 100
