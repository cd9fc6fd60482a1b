"""Decimals and lists are the same offline, online and in a training set, on either engine."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Derived,
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
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart import label_files
from konveyer.feature_store.datamart.label_files import labels_at
from konveyer.feature_store.datamart.manifest import TrainingSet
from konveyer.feature_store.datamart.published import published_features
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.engines.base import Engine, QueryFailed
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.etl.flow import EtlFailed
from konveyer.feature_store.etl.runs import list_runs
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from tests.unit.etl.store import Store, opened_store

HOUR_US = 3_600_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01
NOW = "2026-03-01T00:00:00Z"
CLIENTS = 12


def shares(spent, seen):  # type: ignore[no-untyped-def]
    import numpy as np

    items = [np.nan if one is None else sum(x is not None for x in one) for one in seen]
    return {"doubled": 2 * spent, "items": np.array(items, float)}


DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
    Source(name="payments", path="payments.parquet", event_time="paid_at"),
    FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(
            Aggregation(column="amount", function="sum", over="7d", name="spent"),
            Aggregation(column="amount", function="min", over="7d", name="least"),
            Aggregation(column="amount", function="max", over="unbounded", name="most"),
            Aggregation(column="amount", function="mean", over="7d", name="mean"),
            Aggregation(column="amount", function="stddev", over="30d", name="spread"),
            Aggregation(column="amount", function="count_distinct", over="30d", name="prices"),
            Aggregation(column="amount", function="count", over="7d", name="priced"),
            Aggregation(column="wide", function="last", over="unbounded", name="last_wide"),
            Aggregation(column="seen", function="first", over="unbounded", name="first_seen"),
            Aggregation(column="pages", function="last", over="7d", name="last_pages"),
            Aggregation(column="seen", function="count", over="7d", name="sights"),
        ),
        derived=(
            Derived(name="range", operation="difference", left="most", right="least"),
            Derived(name="share", operation="ratio", left="least", right="spent"),
            Derived(name="above_mean", operation="difference", left="most", right="mean"),
            Derived(name="beyond_count", operation="difference", left="most", right="priced"),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="newest",
        entity="client",
        sql="""
            SELECT client, paid_at AS event_time, amount, wide, seen, pages, counts, flags
            FROM payments
        """,
        features=(
            Feature(name="amount", dtype="decimal(20, 3)", minimum=-1000, maximum=1000),
            Feature(name="wide", dtype="decimal(38,10)"),
            Feature(name="seen", dtype="list<float64>"),
            Feature(name="pages", dtype="list<string>"),
            Feature(name="counts", dtype="list<int64>"),
            Feature(name="flags", dtype="list<bool>"),
        ),
        accuracy="exact",
    ),
    OnDemandView(
        name="now",
        function=shares,
        inputs=("spend:spent", "newest:seen"),
        features=(Feature(name="doubled", dtype="float64"), Feature(name="items", dtype="int64")),
    ),
    FeatureService(name="scoring", features=("spend", "newest", "now")),
)


def payments(rows: int = 600) -> pa.Table:
    """With ties of time that differ in decimals and lists alone, nulls everywhere, empty lists."""
    random = np.random.default_rng(11)

    def maybe(value: Any) -> Any:
        return None if random.random() < 0.15 else value

    def items(one: Any) -> Any:
        return maybe([maybe(one()) for _ in range(random.integers(0, 4))])

    def digits(most: int) -> int:
        return int("".join(str(n) for n in random.integers(0, 10, most)))

    def wide() -> Decimal:
        return Decimal((int(random.integers(0, 2)), tuple(map(int, str(digits(38)))), -10))

    numbers = (0.0, -0.5, 1e300, float("inf"), 0.1)
    texts = ("", "é", "日本 🎉", "home")
    drawn = pa.table(
        {
            "client": random.integers(0, CLIENTS, rows),
            "paid_at": pa.array(
                START_US + random.integers(0, 24 * 20, rows) * HOUR_US, pa.timestamp("us")
            ),
            "amount": pa.array(
                [maybe(Decimal(int(random.integers(-9999, 9999))).scaleb(-2)) for _ in range(rows)],
                pa.decimal128(18, 2),
            ),
            "wide": pa.array([maybe(wide()) for _ in range(rows)], pa.decimal128(38, 10)),
            "seen": pa.array(
                [items(lambda: numbers[random.integers(0, 5)]) for _ in range(rows)],
                pa.list_(pa.float64()),
            ),
            "pages": pa.array(
                [items(lambda: texts[random.integers(0, 4)]) for _ in range(rows)],
                pa.large_list(pa.string()),
            ),
            "counts": pa.array(
                [items(lambda: int(random.integers(-(2**31), 2**31))) for _ in range(rows)],
                pa.list_(pa.int32()),
            ),
            "flags": pa.array(
                [items(lambda: bool(random.integers(0, 2))) for _ in range(rows)],
                pa.list_(pa.bool_()),
            ),
        }
    )
    return pa.concat_tables([drawn, tied().cast(drawn.schema)])


def tied() -> pa.Table:
    """The newest rows of some clients, which differ in one list."""
    lists: tuple[list[Any], ...] = (
        [[1.0, None], [1.0, 2.0], [1.0]],
        [[None], [float("inf")], None, []],
        [[None, 1.0], [None, None], [2.0]],
    )
    rows = [(client, seen) for client, choices in enumerate(lists) for seen in choices]
    table = pa.table(
        {
            "client": [client for client, _ in rows],
            "paid_at": pa.array([START_US + 25 * 24 * HOUR_US] * len(rows), pa.timestamp("us")),
            "seen": pa.array([seen for _, seen in rows], pa.list_(pa.float64())),
        }
    )
    for name in ("pages", "counts", "flags"):
        table = table.append_column(name, pa.nulls(len(rows)))
    for place, name in enumerate(("amount", "wide")):
        table = table.add_column(2 + place, name, pa.nulls(len(rows)))
    return table


def labels(rows: int = 200) -> pa.Table:
    """A label frame with a decimal of its own."""
    random = np.random.default_rng(12)
    return pa.table(
        {
            "client": random.integers(0, CLIENTS + 2, rows),
            "at": pa.array(
                START_US + random.integers(0, 24 * 30, rows) * HOUR_US, pa.timestamp("us", "UTC")
            ),
            "price": pa.array([Decimal(n).scaleb(-2) for n in range(rows)], pa.decimal128(9, 2)),
            "day": pa.array(range(rows), pa.date32()),
        }
    )


@pytest.fixture
def store(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Store]:
    pq.write_table(payments(), tmp_path / "payments.parquet")
    with opened_store(catalog, admin, tmp_path, now=NOW) as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store


def newest_of(rows: pa.Table, client: int, name: str) -> Any:
    """By event time, then by all other columns, nulls last, as the offline table has them."""
    mine = [row for row in rows.to_pylist() if row["client"] == client]
    at = max(row["paid_at"] for row in mine)
    return [row[name] for row in mine if row["paid_at"] == at]


def test_values_pass_through_unchanged(store: Store) -> None:
    (rows, built) = payments(), store.training_set(at_the_end())
    table = built.table
    assert {field.name: str(field.type) for field in table.schema if field.name in NEWEST} == NEWEST
    for place, client in enumerate(range(CLIENTS)):
        for name in NEWEST:
            found = table[name][place].as_py()
            assert any(found == one for one in newest_of(rows, client, name)), (client, name)


NEWEST = {
    "amount": "decimal128(20, 3)",
    "wide": "decimal128(38, 10)",
    "seen": "list<item: double>",
    "pages": "list<item: string>",
    "counts": "list<item: int64>",
    "flags": "list<item: bool>",
}


def at_the_end() -> pa.Table:
    moment = pa.array([START_US + 60 * 24 * HOUR_US] * CLIENTS, pa.timestamp("us", "UTC"))
    return pa.table({"client": list(range(CLIENTS)), "at": moment})


def test_sums_are_exact_and_wider_than_their_column(store: Store) -> None:
    moment = pa.array([START_US + 10 * 24 * HOUR_US] * CLIENTS, pa.timestamp("us", "UTC"))
    table = store.training_set(pa.table({"client": list(range(CLIENTS)), "at": moment})).table
    assert table.schema.field("spent").type == pa.decimal128(38, 2)
    assert table.schema.field("range").type == pa.decimal128(38, 2)
    assert table.schema.field("above_mean").type == pa.float64()
    until, window = moment[0].as_py().replace(tzinfo=None), 7 * 24 * HOUR_US
    for client in range(CLIENTS):
        mine = [row for row in payments().to_pylist() if row["client"] == client]
        mine = [row for row in mine if row["paid_at"] <= until and row["amount"] is not None]
        ever = [row["amount"] for row in mine]
        week = [
            row["amount"]
            for row in mine
            if (until - row["paid_at"]).total_seconds() * 1_000_000 < window
        ]
        row = table.slice(client, 1).to_pylist()[0]
        assert row["spent"] == sum(week)
        assert (row["least"], row["most"]) == (min(week), max(ever))
        assert row["range"] == max(ever) - min(week)
        assert row["beyond_count"] == max(ever) - len(week)
        assert row["mean"] == pytest.approx(float(sum(week)) / len(week), rel=1e-15)
        assert row["share"] == pytest.approx(float(min(week)) / float(sum(week)), rel=1e-15)
        assert row["doubled"] == 2 * float(sum(week))


def test_what_is_online_is_what_is_offline(store: Store) -> None:
    keys = [(client,) for client in range(CLIENTS + 1)]
    moment = pa.array([store.now_us] * len(keys), pa.int64()).cast(pa.timestamp("us", "UTC"))
    frame = pa.table({"client": [key for (key,) in keys], "at": moment})
    offline = store.training_set(frame).table.drop_columns(["client", "at"])
    expected = [tuple(row.values()) for row in offline.to_pylist()]
    assert store.online(*keys) == [*expected[:-1], None]
    assert any(isinstance(value, Decimal) for value in expected[0])


def test_the_comparison_of_a_release_sees_the_logged_form(store: Store) -> None:
    services = store.services
    with services.catalog.reading() as session:
        service = resolve_service(session, active_state(session), "scoring")
    (row,) = published_features(
        services.catalog, services.engine, services.offline, service, [(3,)], [()]
    )
    (online,) = store.online((3,))
    assert list(row) == msgspec.json.decode(msgspec.json.encode(online))


def test_a_training_set_is_built_again_from_its_manifest(store: Store, tmp_path: Path) -> None:
    built = store.training_set(labels())
    assert store.rebuilt(built, labels()).equals(built.table)
    pq.write_table(built.table, tmp_path / "set.parquet")
    again = TrainingSet(manifest=built.manifest, path=built.path, held=None).table
    assert again.equals(built.table)
    assert again["seen"].to_pylist() == built.table["seen"].to_pylist()


def test_labels_in_files_give_the_same_digest(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCK_ROWS", 64)
    monkeypatch.setattr(label_files, "MOST_ROWS_IN_MEMORY", 100)
    held = store.training_set(labels())
    pq.write_table(labels(), tmp_path / "labels.parquet")
    large = store.training_set(labels_at(tmp_path / "labels.parquet"))
    assert large.held is None
    assert large.manifest.result_digest == held.manifest.result_digest


@pytest.mark.spark
def test_spark_gives_what_duckdb_gives(
    store: Store, spark: Engine, catalog: Catalog, admin: Actor, tmp_path: Path
) -> None:
    built = store.training_set(labels())
    (tmp_path / "spark").mkdir()
    pq.write_table(payments(), tmp_path / "spark" / "payments.parquet")
    other = Catalog(f"sqlite:///{tmp_path}/spark/catalog.db")
    other.migrate()
    with opened_store(other, admin, tmp_path / "spark", now=NOW, engine=spark) as on_spark:
        on_spark.apply(*DEFINITIONS)
        on_spark.etl()
        again = on_spark.training_set(labels())
        assert again.manifest.result_digest == built.manifest.result_digest
        keys = [(client,) for client in range(CLIENTS)]
        assert on_spark.online(*keys) == store.online(*keys)
    other.close()


@pytest.mark.spark
def test_what_sql_makes_of_decimals_and_lists_is_the_same(spark: Engine) -> None:
    """Halves of the last digit: a double is a little less or more than it is written as."""
    halves = [(number + 0.5) / 100 for number in range(-4_000, 4_000)]
    table = pa.table(
        {
            "place": range(len(halves)),
            "x": halves,
            "d": pa.array([Decimal(f"{half:.3f}") for half in halves], pa.decimal128(12, 3)),
            "l": [[half, None] for half in halves],
        }
    )
    columns = [
        *(f"CAST(x AS DECIMAL{digits})" for digits in ("(18,2)", "(9, 1)", "(38,2)", "(9)", "")),
        "TRY_CAST(x AS DECIMAL(3,2))",
        "CAST(d AS DECIMAL(18,2))",
        "CAST(d * 1.25 AS DECIMAL(18,4))",
        "CAST(d AS BIGINT)",
        "CAST([x, NULL] AS DOUBLE[])",
        "l[1]",
    ]
    named = ", ".join(f"{column} AS c{place}" for place, column in enumerate(columns))
    sql = f"SELECT {named} FROM halves ORDER BY place"
    duckdb = DuckDBEngine()
    found = []
    for engine in (duckdb, spark):
        with engine.session() as session:
            session.attach_table("halves", table)
            found.append(session.query(sql).to_pydict())
            if engine is spark:
                with pytest.raises(QueryFailed, match="list_contains"):
                    session.query("SELECT list_contains(l, 1.0) AS c FROM halves")
    duckdb.close()
    for name, column in zip(found[0], columns, strict=True):
        assert found[0][name] == found[1][name], column


def refusal(root: Path, catalog: Catalog, admin: Actor, **aggregation: Any) -> KonveyerError:
    """Why `apply` refuses an aggregation of payments."""
    pq.write_table(payments(20), root / "payments.parquet")
    view = FeatureView(
        name="spend",
        entity="client",
        source="payments",
        aggregations=(Aggregation(over="7d", name="it", **aggregation),),
    )
    with (
        opened_store(catalog, admin, root, now=NOW) as store,
        pytest.raises(KonveyerError) as caught,
    ):
        store.check(*DEFINITIONS[:2], view)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("function", ["sum", "mean", "min", "max", "stddev", "count_distinct"])
@pytest.mark.parametrize(
    ("column", "found"), [("wide", "decimal(38,10)"), ("seen", "list<float64>")]
)
def test_wide_decimals_and_lists_are_only_counted_and_picked(
    tmp_path: Path, catalog: Catalog, admin: Actor, function: Any, column: str, found: str
) -> None:
    error = refusal(tmp_path, catalog, admin, column=column, function=function)
    assert error.code == "wrong_type"
    where = f"Feature view 'spend', feature 'it': {function} needs column '{column}'"
    assert error.message.startswith(where)
    assert f"decimal(p,s) of up to 18 digits, but it is {found}" in error.message


def test_a_list_has_no_limits(tmp_path: Path, catalog: Catalog, admin: Actor) -> None:
    error = refusal(tmp_path, catalog, admin, column="seen", function="last", minimum=0)
    assert "feature 'it' is list<float64> and has a minimum" in error.message
    with pytest.raises(BadDefinition, match=r"list<float64> and has a minimum"):
        Feature(name="seen", dtype="list<float64>", maximum=1)
    with pytest.raises(BadDefinition, match=r"only string has `one_of`"):
        Feature(name="amount", dtype="decimal(9,2)", one_of=("1.00",))
    with pytest.raises(BadDefinition, match=r"feature 'seen' has type 'list<float64>'"):
        OnDemandView(
            name="now",
            function="def f(x): ...",
            request=(RequestField("x", "float64"),),
            features=(Feature(name="seen", dtype="list<float64>"),),
        )
    with pytest.raises(BadDefinition, match=r"Request field 'x' has type 'decimal\(9,2\)'"):
        RequestField("x", "decimal(9,2)")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("amount", "decimal(18,1)"),
        ("amount", "decimal(17,2)"),
        ("amount", "float64"),
        ("client", "decimal(18,0)"),
        ("seen", "list<int64>"),
        ("pages", "string"),
    ],
)
def test_a_type_must_hold_all_of_its_column(
    tmp_path: Path, catalog: Catalog, admin: Actor, name: str, dtype: str
) -> None:
    pq.write_table(payments(20), tmp_path / "payments.parquet")
    sql = f"SELECT client, paid_at AS event_time, {name} AS it FROM payments"
    view = FeatureView(
        name="newest", entity="client", sql=sql, features=(Feature(name="it", dtype=dtype),)
    )
    with (
        opened_store(catalog, admin, tmp_path, now=NOW) as store,
        pytest.raises(KonveyerError, match="needs column 'it' as") as caught,
    ):
        store.check(*DEFINITIONS[:2], view)
    assert caught.value.code == "wrong_type"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"minimum": -99.99}, None),
        ({"maximum": 99.5}, r"'amount': \d+ value\(s\) are above the maximum 99\.5"),
        ({"nullable": False}, "'amount': .* are null"),
    ],
)
def test_limits_of_decimals(
    tmp_path: Path, catalog: Catalog, admin: Actor, limits: Any, message: str | None
) -> None:
    pq.write_table(payments(), tmp_path / "payments.parquet")
    view = FeatureView(
        name="newest",
        entity="client",
        sql="SELECT client, paid_at AS event_time, amount, seen FROM payments",
        features=(
            Feature(name="amount", dtype="decimal(18,2)", **limits),
            Feature(name="seen", dtype="list<float64>"),
        ),
    )
    with opened_store(catalog, admin, tmp_path, now=NOW) as store:
        store.apply(*DEFINITIONS[:2], view)
        if message is None:
            store.etl()
            return
        with pytest.raises(EtlFailed):
            store.etl()
        with store.services.catalog.reading() as session:
            (run,) = list_runs(session, view="newest")
        assert run.error is not None
        assert re.search(message, run.error["message"])


def test_a_function_gives_decimals_and_lists(
    tmp_path: Path, catalog: Catalog, admin: Actor
) -> None:
    def halved(rows):  # type: ignore[no-untyped-def]
        import polars as pl

        return rows.with_columns(
            half=(pl.col("amount") / 2).round(2).cast(pl.Decimal(18, 2)),
            backwards=pl.col("seen").list.reverse(),
        )

    pq.write_table(payments(), tmp_path / "payments.parquet")
    view = FeatureView(
        name="halves",
        entity="client",
        source="payments",
        function=halved,
        features=(
            Feature(name="half", dtype="decimal(18,2)"),
            Feature(name="backwards", dtype="list<float64>"),
        ),
        accuracy="exact",
    )
    service = FeatureService(name="scoring", features=("halves", "newest"))
    with opened_store(catalog, admin, tmp_path, now=NOW) as store:
        store.apply(*DEFINITIONS[:2], DEFINITIONS[3], view, service)
        store.etl()
        table = store.training_set(at_the_end()).table
    assert table.schema.field("half").type == pa.decimal128(18, 2)
    seen = payments().to_pylist()
    for row in table.to_pylist():
        choices = [one["seen"] for one in seen if one["client"] == row["client"]]
        assert row["backwards"] in [None if one is None else one[::-1] for one in choices]
