"""Ways to ask for features: again from a manifest, without labels, for a few, and what it costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart import label_files
from konveyer.feature_store.datamart.entities import BadCadence, EntitiesUnclear, cadence
from konveyer.feature_store.datamart.kept_rows import kept_labels
from konveyer.feature_store.datamart.label_files import LabelFiles
from konveyer.feature_store.datamart.label_query import queried_labels
from konveyer.feature_store.datamart.manifest import OutputExists, TrainingSetNotWritten
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
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Entity(name="shop", join_keys=(JoinKey("shop", "string"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(
            Aggregation(column="amount", function="sum", over="3d", name="spent"),
            Aggregation(column="amount", function="max", over="3d", name="largest"),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="newest",
        entity="client",
        sql="SELECT client, paid_at AS event_time, amount AS last_amount, shop FROM payments",
        features=(Feature(name="last_amount", dtype="int64"), Feature(name="shop", dtype="string")),
        accuracy="exact",
    ),
    FeatureView(
        name="takings",
        entity="shop",
        source="payments",
        aggregations=(Aggregation(function="count", over="unbounded", name="customers"),),
        accuracy="exact",
    ),
    FeatureService(name="scoring", features=("spend:spent", "newest:last_amount")),
    FeatureService(name="both", features=("spend", "takings")),
)


@pytest.fixture
def store(
    catalog: Catalog, admin: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Client c pays c + day each day at noon; many buckets of several row groups."""
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 500)
    monkeypatch.setattr(delta, "_ROW_GROUP_ROWS", 40)
    clients, days = np.divmod(np.arange(2_000), 10)
    pq.write_table(
        pa.table(
            {
                "client": clients,
                "paid_at": pa.array(START_US + days * DAY_US + DAY_US // 2, pa.timestamp("us")),
                "amount": clients + days,
                "shop": pa.array([f"shop {n % 3}" for n in clients]),
            }
        ),
        tmp_path / "payments.parquet",
    )
    with opened_store(catalog, admin, tmp_path, now="2026-02-01T00:00:00Z") as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store


def labels(clients: list[int], day: int = 5) -> pa.Table:
    at = pa.array([START_US + day * DAY_US] * len(clients), pa.timestamp("us", "UTC"))
    return pa.table({"client": clients, "at": at})


def spent(client: int) -> int:
    return sum(client + day for day in (2, 3, 4))


def test_a_few_entities_get_what_all_of_them_get_and_read_less(store: Store) -> None:
    asked = [7, 199, 7_000, 7]
    frame = labels(asked).append_column("row", pa.array(range(4)))
    few = store.training_set(frame).table
    assert few["spent"].to_pylist() == [spent(7), spent(199), None, spent(7)]
    every = store.training_set(labels(list(range(200)))).table
    assert every["spent"].to_pylist() == [spent(client) for client in range(200)]
    assert every["last_amount"].to_pylist() == [client + 4 for client in range(200)]
    (windows, newest) = costs(store, frame)
    assert windows.method == "windows over sorted rows"
    assert newest.method == "point-in-time join"
    assert windows.of_buckets == 4
    assert windows.read_rows <= 3 * 40 * 2 < windows.rows
    assert windows.columns == ("client", "event_time", "of_amount")
    assert 0 < newest.read_bytes < newest.size_bytes
    (one, _) = costs(store, labels([7]), run=False)
    assert (one.buckets, one.which_buckets) == (1, "3")


def costs(store: Store, frame: pa.Table, **options: Any) -> Any:
    services = store.services
    return explain_training_set(
        services.catalog,
        store.admin,
        services.engine,
        services.offline,
        service="scoring",
        labels=frame,
        timestamp="at",
        folder=store.training_sets,
        **options,
    )


def from_sql(store: Store, sql: str) -> pa.Table:
    services = store.services
    with queried_labels(
        services.catalog, store.admin, services.engine, services.places, sql
    ) as frame:
        assert isinstance(frame, pa.Table)
        return store.training_set(frame).table


def test_labels_are_the_sorted_rows_of_a_select_over_sources(store: Store) -> None:
    sql = """SELECT client, max(paid_at) - INTERVAL 4 DAY - INTERVAL 12 HOUR AS at, {}
        FROM payments WHERE client IN (199, 7) GROUP BY client ORDER BY client DESC"""
    built = from_sql(store, sql.format("count(*) AS payments"))
    assert built.drop_columns(["payments"]).equals(store.training_set(labels([7, 199])).table)
    assert built["payments"].to_pylist() == [10, 10]
    assert not list(store.services.places.staging.iterdir())


def test_labels_in_sql_may_read_sources_that_are_sql_themselves(store: Store) -> None:
    large = Source(
        name="large", sql="SELECT * FROM payments WHERE client > 100", event_time="paid_at"
    )
    store.apply(*DEFINITIONS, large)
    built = from_sql(store, "SELECT client, max(paid_at) AS at FROM large GROUP BY client")
    assert built["client"].to_pylist() == list(range(101, 200))


@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        ("SELECT * FROM payment", "sql_invalid", "'payment', which is no registered source"),
        ("SELECT FROM WHERE", "sql_invalid", "The SQL of the labels does not parse"),
        ("DROP TABLE payments", "sql_invalid", "must be exactly one SELECT"),
        ("SELECT nobody FROM payments", "sql_invalid", "nobody"),
        ("SELECT *, paid_at AS at, 1 AS client FROM payments", "sql_invalid", "two columns"),
        ("SELECT * FROM payments WHERE client < 0", "labels_empty", "gives no rows"),
        ("SELECT client, shop FROM payments LIMIT 1", "labels_miss_column", "no column 'at'"),
    ],
)
def test_what_is_wrong_with_labels_in_sql_is_said(
    store: Store, sql: str, code: str, said: str
) -> None:
    with pytest.raises(KonveyerError, match=said) as raised:
        from_sql(store, sql)
    assert raised.value.code == code


def test_the_estimate_is_the_truth_when_everything_is_read(store: Store) -> None:
    (estimated, _) = costs(store, every_moment(), run=False)
    (true, _) = costs(store, every_moment())
    assert estimated.read_rows is None
    assert estimated.which_buckets is None
    assert true.rows == true.read_rows == estimated.rows == 2_000
    assert 0 < true.read_bytes < true.size_bytes  # which counts footers and a share of keys


def every_moment() -> pa.Table:
    return pa.concat_tables([labels(list(range(200)), day) for day in range(25)])


def test_a_manifest_gives_the_same_again_after_the_tables_have_moved_on(
    store: Store, tmp_path: Path
) -> None:
    built = store.training_set(labels([1, 2, 3]))
    table = pq.read_table(tmp_path / "payments.parquet")
    larger = table.set_column(2, "amount", pa.array(table["amount"].to_numpy() + 1_000))
    pq.write_table(larger, tmp_path / "payments.parquet")
    store.etl()
    assert store.training_set(labels([1, 2, 3])).table["spent"].to_pylist()[0] == spent(1) + 3_000

    kept = kept_labels(built.path.parent, built.manifest)
    assert kept == labels([1, 2, 3])
    assert store.rebuilt(built, kept).equals(built.table)
    with pytest.raises(TrainingSetDiffers, match="labels are not those"):
        store.rebuilt(built, labels([1, 2, 4]))


def test_labels_in_seconds_and_milliseconds_are_the_same_again(store: Store) -> None:
    frame = labels([1, 2])
    seconds, days = frame["at"].cast(pa.timestamp("s", "UTC")), frame["at"].cast(pa.date64())
    frame = frame.append_column("asked", seconds).append_column("day", days)
    frame = frame.append_column("hour", pa.array([1, 2], pa.time32("s")))
    built = store.training_set(frame)
    kept = kept_labels(built.path.parent, built.manifest)
    assert store.rebuilt(built, kept).equals(built.table)
    assert store.rebuilt(built, frame).equals(built.table)


def test_every_entity_at_a_cadence_is_every_entity_known_by_then(store: Store) -> None:
    services = store.services

    def frame(service: str, start: str, end: str) -> pa.Table:
        moments_us = cadence(parse_instant(start), parse_instant(end), 5 * DAY_US)
        with entity_frame(
            services.catalog,
            services.engine,
            services.offline,
            service=service,
            moments_us=moments_us,
            staging=services.places.staging,
        ) as found:
            assert isinstance(found, pa.Table)
            return found

    spine = frame("scoring", "2025-12-27", "2026-01-11")
    assert spine.column_names == ["client", "at"]
    assert spine["client"].to_pylist() == list(range(200)) * 2  # nobody before 1 January, noon
    built = store.training_set(spine).table
    assert built["spent"].to_pylist()[:200] == [spent(client) for client in range(200)]
    with pytest.raises(EntitiesUnclear, match="client, shop"):
        frame("both", "2026-01-05", "2026-01-05")
    with pytest.raises(BadCadence):
        frame("scoring", "2026-01-05", "2026-01-04")
    with pytest.raises(BadCadence, match="20,000,001 moments"):
        cadence(0, 20_000_000, 1)


def test_what_is_called_as_the_moments_of_a_cadence_is_refused_with_a_way_out(store: Store) -> None:
    services = store.services
    visits = FeatureView(
        name="visits",
        entity="moment",
        sql="SELECT paid_at AS event_time, client AS at, amount FROM payments",
        features=(Feature(name="amount", dtype="int64"),),
        accuracy="exact",
    )
    store.apply(
        *DEFINITIONS,
        Entity(name="moment", join_keys=(JoinKey("at", "int64"),)),
        visits,
        FeatureService(name="named", features=("spend:spent as at",)),
        FeatureService(name="keyed", features=("visits",)),
    )
    store.etl("visits")

    def built(service: str) -> object:
        with entity_frame(
            services.catalog,
            services.engine,
            services.offline,
            service=service,
            moments_us=np.array([START_US + 9 * DAY_US]),
            staging=services.places.staging,
        ) as spine:
            return store.training_set(spine, service=service)

    with pytest.raises(KonveyerError, match="column 'at'") as named:
        built("named")
    assert "'spend:spent as OTHER_NAME'" in str(named.value.hint)
    with pytest.raises(KonveyerError, match="join key of the service is called 'at'") as keyed:
        built("keyed")
    assert {named.value.code, keyed.value.code} == {"feature_clash"}


def test_rows_that_cannot_be_written_somewhere_are_still_kept(store: Store, tmp_path: Path) -> None:
    built = store.training_set(labels([1, 2]))
    with pytest.raises(OutputExists, match="is a folder"):
        built.write_to(tmp_path)
    with pytest.raises(TrainingSetNotWritten, match=built.manifest.id) as caught:
        built.write_to(tmp_path / "payments.parquet" / "rows.parquet")
    assert f"rebuild {built.manifest.id} --output" in str(caught.value.hint)
    assert store.rebuilt(built, labels([1, 2])).equals(built.table)


def test_many_entities_stay_in_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", 300)
    moments_us = cadence(parse_instant("2026-01-03"), parse_instant("2026-01-05"), DAY_US)
    with entity_frame(
        store.services.catalog,
        store.services.engine,
        store.services.offline,
        service="scoring",
        moments_us=moments_us,
        staging=store.services.places.staging,
    ) as frame:
        assert isinstance(frame, LabelFiles)
        assert len(frame.files) == 4
        built = store.training_set(frame)
    assert built.held is None
    rows = built.table.sort_by([("at", "ascending"), ("client", "ascending")])
    assert rows["client"].to_pylist() == list(range(200)) * 3
    assert rows["last_amount"].to_pylist()[400:] == [client + 3 for client in range(200)]
    assert not list(store.services.places.staging.iterdir())


def test_every_entity_is_found_in_views_that_name_their_keys_in_other_orders(store: Store) -> None:
    keys = (JoinKey("client", "int64"), JoinKey("shop", "string"))
    views = [
        FeatureView(
            name=f"visits_{name}",
            entity=name,
            source="payments",
            aggregations=(Aggregation(function="count", over="3d", name=f"count_{name}"),),
        )
        for name in ("pair", "riap")
    ]
    store.apply(
        *DEFINITIONS,
        Entity(name="pair", join_keys=keys),
        Entity(name="riap", join_keys=keys[::-1]),
        *views,
        FeatureService(name="pairs", features=("visits_pair", "visits_riap")),
    )
    store.etl("visits_pair", "visits_riap")
    with entity_frame(
        store.services.catalog,
        store.services.engine,
        store.services.offline,
        service="pairs",
        moments_us=np.array([START_US + 9 * DAY_US]),
        staging=store.services.places.staging,
    ) as spine:
        assert isinstance(spine, pa.Table)
    found = zip(spine["client"].to_pylist(), spine["shop"].to_pylist(), strict=True)
    assert list(found) == [(client, f"shop {client % 3}") for client in range(200)]


def test_views_of_different_entities_meet_in_one_training_set(store: Store) -> None:
    at = pa.array([START_US + 5 * DAY_US] * 2, pa.timestamp("us", "UTC"))
    frame = pa.table({"client": [4, 5], "shop": ["shop 0", "shop 9"], "at": at})
    built = store.training_set(frame, service="both").table
    assert built.select(["spent", "largest", "customers"]).to_pylist() == [
        {"spent": spent(4), "largest": 8, "customers": 67 * 5},
        {"spent": spent(5), "largest": 9, "customers": 0},
    ]
    assert store.training_set(labels([4])).to_polars()["spent"].to_list() == [spent(4)]
    assert store.training_set(labels([4])).to_pandas()["spent"].tolist() == [spent(4)]
