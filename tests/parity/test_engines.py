"""Spark gives what DuckDB gives: the same tables row for row, the same cells, the same digests."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark import SparkContext

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.catalog.session import Catalog
from konveyer.core import digests
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart import label_files, pieces
from konveyer.feature_store.datamart.join import BucketRead
from konveyer.feature_store.datamart.kept_rows import kept_labels
from konveyer.feature_store.datamart.label_files import labels_at
from konveyer.feature_store.datamart.label_query import queried_labels
from konveyer.feature_store.datamart.labels import LabelsRepeat
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines.base import Engine, QueryFailed, SourceUnreadable
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.engines.spark import SparkEngine
from konveyer.feature_store.engines.spark_sql import to_spark
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.errors import NumberOverflow
from konveyer.feature_store.offline import delta, layout
from konveyer.feature_store.offline.layout import BUCKET, bucket_numbers, bucket_sql
from tests.unit.etl.store import Store, opened_store

pytestmark = pytest.mark.spark

HOUR_US = 3_600_000_000
SHOPS = ("Café", "bar's", "日本 🎉", "", "e\u0301")
NOW = "2026-03-01T00:00:00Z"
START_US = 1_767_225_600_000_000  # 2026-01-01
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Entity(name="visitor", join_keys=(JoinKey("client", "int64"), JoinKey("shop", "string"))),
    Entity(name="card", join_keys=(JoinKey("card", "uuid"),)),
    Source(name="payments", path="payments", event_time="paid_at", created_time="known_at"),
    Source(
        name="large",
        sql="SELECT *, amount * 2 AS twice FROM payments WHERE coalesce(amount, 5) > 2",
        event_time="paid_at",
        created_time="known_at",
    ),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(
            Aggregation(column="amount", function="sum", over="3d", name="spent"),
            Aggregation(column="rate", function="mean", over="7d", name="rate"),
            Aggregation(column="rate", function="stddev", over="unbounded", name="spread"),
            Aggregation(column="shop", function="last", over="7d", name="last_shop"),
            Aggregation(column="paid_at", function="max", over="30d", name="newest"),
            Aggregation(function="count", over="7d", name="refunds", where="amount < 0"),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="visits",
        entity="visitor",
        source="large",
        aggregations=(
            Aggregation(function="count", over="7d", name="visits"),
            Aggregation(column="twice", function="min", over="unbounded", name="least"),
        ),
        refresh="1d",
    ),
    FeatureView(
        name="profile",
        entity="client",
        sql="""
            WITH ranked AS (
                SELECT *, row_number() OVER (
                    PARTITION BY client, paid_at ORDER BY amount, shop DESC, rate, known_at
                ) AS place
                FROM payments
            )
            SELECT client, paid_at AS event_time, rate::DOUBLE AS last_rate, amount IS NULL AS gone,
                   concat(shop, '/', amount) AS label, date_trunc('day', paid_at) AS day
            FROM ranked WHERE place = 1
        """,
        features=(
            Feature(name="last_rate", dtype="float64"),
            Feature(name="gone", dtype="bool"),
            Feature(name="label", dtype="string"),
            Feature(name="day", dtype="timestamp"),
        ),
        ttl="20d",
        accuracy="exact",
        as_known=False,
    ),
    FeatureView(
        name="cards",
        entity="card",
        source="payments",
        aggregations=(Aggregation(function="count", over="unbounded", name="uses"),),
    ),
    FeatureService(name="scoring", features=("spend", "visits", "profile", "cards")),
)


def payments(rows: int = 3_000) -> pa.Table:
    """Rows with ties, nulls, negative keys, and texts that are not ASCII."""
    random = np.random.default_rng(7)
    client = random.integers(-40, 40, rows)
    times = START_US + random.integers(0, 24 * 50, rows) * HOUR_US
    shops = [SHOPS[n] for n in random.integers(0, len(SHOPS), rows)]
    return pa.table(
        {
            "client": pa.array(client, mask=random.random(rows) < 0.01),
            "shop": pa.array(shops),
            "card": [f"{{{number % 7:08X}-0000-0000-0000-00000000ABCD}}" for number in client],
            "paid_at": pa.array(times, pa.timestamp("us")),
            "known_at": pa.array(
                (times + random.integers(0, 9, rows) * HOUR_US) * 1_000, pa.timestamp("ns")
            ),
            "amount": pa.array(random.integers(-9, 99, rows), pa.int32(), mask=client % 5 == 0),
            "rate": pa.array(random.normal(size=rows).round(1), pa.float32()),
        }
    )


def labels(rows: int = 500) -> pa.Table:
    random = np.random.default_rng(8)
    clients = random.integers(-45, 45, rows)
    return pa.table(
        {
            "client": clients,
            "shop": [SHOPS[n] for n in random.integers(0, len(SHOPS), rows)],
            "card": [f"{number % 9:08x}-0000-0000-0000-00000000abcd" for number in clients],
            "at": pa.array(
                START_US + random.integers(0, 24 * 60, rows) * HOUR_US, pa.timestamp("us", "UTC")
            ),
            "row": np.arange(rows),
        }
    )


@dataclass(frozen=True)
class Both:
    duckdb: Store
    spark: Store


@pytest.fixture(scope="module")
def both(spark: SparkEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """The same definitions and data on both engines, computed, in several buckets."""
    from tests.conftest import ADMIN

    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "ROWS_PER_BUCKET", 800)
        patch.setattr(delta, "_ROW_GROUP_ROWS", 50)
        stores = []
        for name, engine in (("duckdb", None), ("spark", spark)):
            root = tmp_path_factory.mktemp(name)
            write_payments(root, payments())
            catalog = Catalog(f"sqlite:///{root}/catalog.db")
            catalog.migrate()
            stack.callback(catalog.close)
            store = stack.enter_context(opened_store(catalog, ADMIN, root, now=NOW, engine=engine))
            store.apply(*DEFINITIONS)
            store.etl()
            stores.append(store)
        yield Both(*stores)


def write_payments(root: Path, table: pa.Table) -> None:
    """As a folder of files, one of them deeper than the others."""
    (root / "payments" / "older").mkdir(parents=True, exist_ok=True)
    half = len(table) // 2
    pq.write_table(table.slice(0, half), root / "payments" / "older" / "a.parquet")
    pq.write_table(table.slice(half), root / "payments" / "b.parquet")


def bucket_in_python(values: tuple[object, ...]) -> int:
    text = "".join(f"{len(str(value))}:{value}" for value in values)
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") % layout.MOST_BUCKETS


def test_a_key_has_the_same_bucket_in_every_engine(spark: SparkEngine) -> None:
    numbers = [0, 1, -1, 2**63 - 1, -(2**63), 10**12, 12, 1]
    texts = ["", "a", "é", "e\u0301", "日本", "🎉 party", "it's", "1"]
    table = pa.table({"number": numbers, "text": texts})
    keys = (ScalarColumn("number", ColumnType.INT64), ScalarColumn("text", ColumnType.STRING))
    duckdb = DuckDBEngine()
    for chosen in (keys[:1], keys[1:], keys, keys[::-1]):
        sql = f"SELECT {bucket_sql(chosen, layout.MOST_BUCKETS)} AS {BUCKET} FROM keys"
        columns = [table[key.name].to_pylist() for key in chosen]
        expected = [bucket_in_python(values) for values in zip(*columns, strict=True)]
        assert bucket_numbers(chosen, table).tolist() == expected
        for engine in (duckdb, spark):
            with engine.session() as session:
                session.attach_table("keys", table)
                assert session.query(sql)[BUCKET].to_pylist() == expected
    duckdb.close()


@pytest.mark.parametrize("view", ["spend", "visits", "profile", "cards"])
def test_the_tables_are_the_same_row_for_row(both: Both, view: str) -> None:
    tables = []
    for store in (both.duckdb, both.spark):
        with store.services.catalog.reading() as session:
            version = session.connection().exec_driver_sql(
                f"SELECT version FROM etl_runs WHERE view = '{view}'"
            )
            ref, run = readable_table(session, view, version.scalar_one())
        assert run.rows
        table = store.services.offline.open(ref)
        assert {len(files) for files in table.files.values()} == {1}
        tables.append({bucket: table.read(bucket).table for bucket in table.files})
    assert tables[0].keys() == tables[1].keys()
    assert len(tables[0]) >= 3
    for bucket, expected in tables[0].items():
        assert tables[1][bucket].equals(expected)


def test_a_training_set_is_the_same_cell_for_cell(both: Both) -> None:
    expected, found = (store.training_set(labels()) for store in (both.duckdb, both.spark))
    assert found.table.equals(expected.table)
    assert found.manifest.result_digest == expected.manifest.result_digest
    for column in expected.table.column_names[5:]:
        assert len(expected.table[column].drop_null()), column


def test_labels_in_sql_are_the_same_rows_in_the_same_order(both: Both) -> None:
    sql = "SELECT client, shop, paid_at, amount, rate FROM payments WHERE client IS NOT NULL"
    frames = []
    for store in (both.duckdb, both.spark):
        services = store.services
        with queried_labels(
            services.catalog, store.admin, services.engine, services.places, sql
        ) as frame:
            assert isinstance(frame, pa.Table)
            utc = pa.timestamp("us", tz="UTC")
            place = frame.column_names.index("paid_at")
            frames.append(frame.set_column(place, "paid_at", frame["paid_at"].cast(utc)))
    assert len(frames[0]) > 2_500
    assert frames[1].equals(frames[0])


def test_labels_that_stay_in_files_give_the_same_on_executors(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCK_ROWS", 200)
    monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", 0)
    expected = both.duckdb.training_set(labels())
    for number, start in enumerate((0, 150)):
        part = labels().slice(start, 150 if start == 0 else None)
        pq.write_table(part, tmp_path / f"{number}.parquet", row_group_size=40)
    large = both.spark.training_set(labels_at(tmp_path))
    assert large.held is None
    assert large.table.equals(expected.table)
    assert large.manifest.labels_digest == expected.manifest.labels_digest
    assert large.manifest.result_digest == expected.manifest.result_digest
    again = both.spark.rebuilt(large, kept_labels(both.spark.training_sets, large.manifest))
    assert again.equals(expected.table)
    pq.write_table(labels().slice(7, 1), tmp_path / "2.parquet")
    with pytest.raises(LabelsRepeat, match=r"1 row\(s\) .*'row': 7"):
        both.spark.training_set(labels_at(tmp_path))


def test_executors_read_a_heavy_bucket_in_pieces(
    both: Both, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = both.duckdb.training_set(labels())
    monkeypatch.setattr(digests, "BLOCK_ROWS", 200)
    whole = both.duckdb.training_set(labels())
    monkeypatch.setattr(pieces, "MOST_ROWS", 150)
    monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", 0)
    pq.write_table(labels(), tmp_path / "labels.parquet")
    for given in (labels(), labels_at(tmp_path / "labels.parquet")):
        reads: list[BucketRead] = []
        found = both.spark.training_set(given, watch=reads.append)
        assert found.table.equals(expected.table)
        assert found.manifest.result_digest == whole.manifest.result_digest
        newest = [read.rows for read in reads if read.view == "profile"]
        assert len(newest) > 8
        assert max(newest) <= 300


def test_online_values_are_the_same(both: Both) -> None:
    keys = [
        (client, shop, f"{client % 7:08x}-0000-0000-0000-00000000abcd")
        for client in range(-3, 3)
        for shop in SHOPS
    ]
    expected = both.duckdb.online(*keys)
    assert both.spark.online(*keys) == expected
    assert len(set(expected)) > 10


def test_what_is_wrong_with_sql_or_a_file_is_said_by_each_engine(
    engine: Engine, tmp_path: Path
) -> None:
    write_payments(tmp_path, payments(10))
    files = sorted(str(file) for file in tmp_path.rglob("*.parquet"))
    engine.attach_parquet("payments", files)
    for sql in ("SELECT nothing FROM payments", "SELECT no_function(client) FROM payments"):
        with pytest.raises(QueryFailed) as caught:
            engine.describe(sql)
        assert "\n" not in caught.value.message
    with pytest.raises(QueryFailed, match=r"Café|bar|日本|cast|Convers"):
        engine.query("SELECT sum(CAST(concat(shop, 'x') AS BIGINT)) FROM payments")
    with pytest.raises(SourceUnreadable, match=r"gone\.parquet"):
        engine.attach_parquet("gone", [str(tmp_path / "gone.parquet")])
    assert engine.query("SELECT count(*) AS n FROM payments")["n"].to_pylist() == [10]


class _Halves:
    def __call__(self, number: int) -> float:
        if number < 0:
            raise NumberOverflow("A half")
        return number / 2


def test_a_job_is_mapped_in_order_and_its_error_arrives_as_it_is(engine: Engine) -> None:
    assert list(engine.map(_halved, range(40))) == [number / 2 for number in range(40)]
    with pytest.raises(NumberOverflow, match="A half does not fit"):
        list(engine.map(_halved, [1, -1]))


_halved = _Halves()


def test_only_some_results_come_to_the_driver_at_a_time(
    spark: SparkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 2_000_000
    fetched: list[int] = []
    run_job = SparkContext.runJob

    def told(self: SparkContext, *arguments: Any) -> list[Any]:
        found = run_job(self, *arguments)
        fetched.append(sum(len(one) for one in found))
        return found

    monkeypatch.setattr(SparkContext, "runJob", told)
    sizes = [large, 1, large, 2]
    results = spark.map(bytes, sizes)
    assert next(results) == bytes(large)
    assert [size // large for size in fetched] == [1]
    assert [len(one) for one in results] == sizes[1:]
    assert [size // large for size in fetched] == [1, 1]


def test_sql_that_spark_cannot_say_is_refused() -> None:
    with pytest.raises(KonveyerError) as caught:
        to_spark("SELECT FROM WHERE")
    assert caught.value.code == "query_failed"


def test_a_spark_that_was_killed_is_started_again(spark: SparkEngine) -> None:
    assert spark.query("SELECT 1 AS one")["one"].to_pylist() == [1]
    jvm: Any = SparkContext._gateway.proc  # type: ignore[union-attr]
    jvm.kill()
    jvm.wait()
    assert spark.query("SELECT 2 AS two")["two"].to_pylist() == [2]
    assert list(spark.map(_halved, [4])) == [2.0]


def test_keys_of_any_type_stay_short_in_spark() -> None:
    kinds = (ColumnType.INT64, ColumnType.STRING, ColumnType.UUID)
    keys = [ScalarColumn(f"key_{kind}", kind) for kind in kinds]
    assert len(to_spark(f"SELECT {bucket_sql(keys, 16)} FROM cards")) < 10_000
