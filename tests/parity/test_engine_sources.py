"""Whatever a source is, and whatever a view is made of, Spark gives what DuckDB gives."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

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
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import find_entity
from konveyer.feature_store.definitions.definition import Definition, Kind
from konveyer.feature_store.engines.base import Engine, QueryFailed, SourceUnreadable
from konveyer.feature_store.engines.spark import SparkEngine
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.offline import layout
from konveyer.feature_store.registry.lookup import active_state
from tests.conftest import ADMIN
from tests.unit.etl import extremes
from tests.unit.etl.store import Store, opened_store

pytestmark = pytest.mark.spark

NOW = "2026-01-20T00:00:00Z"
START_US = parse_instant("2026-01-01T00:00:00Z")
DAY_US = 86_400_000_000
CLIENTS = 30
TYPES: dict[str, str] = {"client": "int64", "at": "timestamp", "amount": "float64"}
PLACES: dict[str, dict[str, Any]] = {
    "folders": {"path": "folders"},
    "lake": {"path": "lake"},
    "lake_in_parts": {"path": "lake_in_parts"},
    "lake_that_grew": {"path": "lake_that_grew"},
    "text": {"path": "text.csv", "columns": TYPES},
    "base": {"database": "shop", "table": "payments", "columns": TYPES},
    "nanos": {"path": "nanos.parquet"},
}
ORDER = "Group By"


def running(rows: Any) -> Any:
    import polars as pl

    return rows.with_columns(running=pl.col("amount").cum_sum().over("client"))


def asked(price: Any, running: Any) -> dict[str, Any]:
    return {"share": price / running}


def definitions() -> Iterator[Definition]:
    yield Entity(name="client", join_keys=(JoinKey("client", "int64"),))
    for name, place in PLACES.items():
        yield Source(name=name, event_time="at", **place)
        spent = Aggregation(column="amount", function="sum", over="5d", name=f"{name}_spent")
        yield FeatureView(name=name, entity="client", source=name, aggregations=(spent,))
    yield Source(
        name="odd",
        sql=f'SELECT *, amount * 2 AS "{ORDER}" FROM folders',
        event_time="at",
    )
    greatest = Aggregation(column=ORDER, function="max", over="5d", name="greatest")
    days = Aggregation(column="day", function="last", over="5d", name="last_day")
    yield FeatureView(name="odd", entity="client", source="odd", aggregations=(greatest, days))
    yield FeatureView(
        name="run",
        entity="client",
        source="lake",
        function=running,
        features=(Feature(name="running", dtype="float64"),),
        ttl="30d",
        accuracy="exact",
    )
    yield OnDemandView(
        name="asked",
        function=asked,
        request=(RequestField("price", "float64"),),
        inputs=("run:running",),
        features=(Feature(name="share", dtype="float64"),),
    )
    yield FeatureService(name="scoring", features=(*PLACES, "odd", "run", "asked"))


def rows(first_day: int, last_day: int) -> pa.Table:
    seen = [(client, day) for client in range(CLIENTS) for day in range(first_day, last_day)]
    clients, days = zip(*seen, strict=True)
    at = pa.array([START_US + day * DAY_US for day in days], pa.timestamp("us"))
    amounts = [float(client % 7 * day - 3) for client, day in seen]
    return pa.table({"client": clients, "at": at, "amount": amounts})


def write_sources(root: Path, first_day: int = 0, last_day: int = 8) -> None:
    """Folders by day, Delta tables of three kinds, CSV, a database, nanoseconds."""
    table = rows(first_day, last_day)
    for day in range(first_day, last_day):
        (root / f"folders/day={day}").mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(day, day + 1), root / f"folders/day={day}/part.parquet")
    by_client = table.append_column(
        "kind", pa.array([f"k {c % 2}" for c in table["client"].to_pylist()])
    )
    write_deltalake(str(root / "lake"), table, mode="overwrite")
    write_deltalake(str(root / "lake_in_parts"), by_client, mode="overwrite", partition_by=["kind"])
    write_deltalake(
        str(root / "lake_that_grew"),
        rows(first_day, 4).drop_columns(["amount"]),
        mode="overwrite",
        schema_mode="overwrite",
    )
    write_deltalake(
        str(root / "lake_that_grew"), rows(4, last_day), mode="append", schema_mode="merge"
    )
    pa.csv.write_csv(table, root / "text.csv")
    nanos = table.set_column(1, "at", table["at"].cast(pa.timestamp("ns")))
    pq.write_table(nanos, root / "nanos.parquet")
    with sqlite3.connect(root / "shop.db") as shop:
        shop.execute("DROP TABLE IF EXISTS payments")
        shop.execute("CREATE TABLE payments (client, at, amount)")
        values = zip(
            table["client"].to_pylist(),
            [at.isoformat() for at in table["at"].to_pylist()],
            table["amount"].to_pylist(),
            strict=True,
        )
        shop.executemany("INSERT INTO payments VALUES (?, ?, ?)", values)
    shop.close()


@dataclass(frozen=True)
class Both:
    duckdb: Store
    spark: Store

    @property
    def each(self) -> tuple[Store, Store]:
        return self.duckdb, self.spark


@pytest.fixture
def both(spark: SparkEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 100)
    stores = []
    with ExitStack() as stack:
        for name, engine in (("duckdb", None), ("spark", spark)):
            root = tmp_path / name
            root.mkdir()
            write_sources(root)
            catalog = Catalog(f"sqlite:///{root}/catalog.db")
            catalog.migrate()
            stack.callback(catalog.close)
            opened = stack.enter_context(opened_store(catalog, ADMIN, root, now=NOW, engine=engine))
            databases = {"shop": f"sqlite:///{root}/shop.db"}
            store = replace(opened, services=replace(opened.services, databases=databases))
            store.apply(*definitions())
            store.etl()
            stores.append(store)
        yield Both(*stores)


def content(store: Store, view: str) -> dict[int, pa.Table]:
    with store.services.catalog.reading() as session:
        version = active_state(session).versions[Kind.VIEW, view]
        ref, _ = readable_table(session, view, version)
    table = store.services.offline.open(ref)
    return {bucket: table.read(bucket).table for bucket in table.files}


def assert_same(both: Both) -> None:
    for view in (*PLACES, "odd", "run"):
        expected, found = (content(store, view) for store in both.each)
        assert expected.keys() == found.keys()
        assert len(expected) > 1
        for bucket in expected:
            assert found[bucket].equals(expected[bucket]), view


def test_tables_training_sets_and_records_are_the_same(both: Both) -> None:
    assert_same(both)
    at = pa.array([START_US + 6 * DAY_US] * CLIENTS, pa.timestamp("us"))
    frame = pa.table({"client": range(CLIENTS), "at": at, "price": [1.5] * CLIENTS})
    expected, found = (store.training_set(frame).table for store in both.each)
    assert found.equals(expected)
    for name in expected.column_names:
        assert expected[name].null_count < CLIENTS, name
    keys = [(client,) for client in range(CLIENTS)]
    prices = [[2.0]] * CLIENTS
    assert both.spark.online(*keys, requests=prices) == both.duckdb.online(*keys, requests=prices)


def test_who_is_forgotten_or_gone_leaves_both_engines_alike(both: Both) -> None:
    for store in both.each:
        sets = store.services.root / "training_sets"

        def find(store: Store = store, sets: Path = sets) -> Any:
            return find_entity(store.services, ADMIN, sets, "client", {"client": "17"})

        held = forget(store.services, ADMIN, sets, find, everywhere=True)
        assert held.tables
    assert_same(both)
    for store in both.each:
        # Fewer days: the newest records are taken back. The source still has the forgotten one.
        for day in (6, 7):
            (store.services.root / f"folders/day={day}/part.parquet").unlink()
        write_sources(store.services.root, last_day=6)
        store.etl()
    assert_same(both)
    for bucket in content(both.spark, "run").values():
        assert 17 not in bucket["client"].to_pylist()
    keys, prices = [(client,) for client in range(CLIENTS)], [[2.0]] * CLIENTS
    expected = both.duckdb.online(*keys, requests=prices)
    assert both.spark.online(*keys, requests=prices) == expected


def test_what_is_wrong_with_a_source_or_a_function_is_said_and_changes_nothing(
    both: Both,
) -> None:
    before = {view: content(both.spark, view) for view in ("folders", "run")}
    keys, prices = [(client,) for client in range(CLIENTS)], [[2.0]] * CLIENTS
    online = both.spark.online(*keys, requests=prices)
    # Of no rows, as when it is applied, it gives what it says.
    given = "rows['amount'].cast(str) if len(rows) else 1.0"
    wrong = f"def f(rows):\n    return rows.with_columns(running={given})\n"
    views = [one for one in definitions() if isinstance(one, FeatureView) and one.name == "run"]
    others = [one for one in definitions() if one not in views]
    both.spark.apply(*others, *(replace(view, function=wrong) for view in views))
    with pytest.raises(KonveyerError, match=r"'run' returned 'running' as .*string"):
        both.spark.etl("run")
    both.spark.apply(*definitions())
    part = both.spark.services.root / "folders/day=3/part.parquet"
    part.write_bytes(b"PAR1 is how it begins, and how it ends PAR1")
    with pytest.raises(KonveyerError, match="'folders'"):
        both.spark.etl("folders")
    assert {view: content(both.spark, view) for view in before} == before
    assert both.spark.online(*keys, requests=prices) == online


def test_the_ends_of_types_come_back_as_they_are(spark: SparkEngine, tmp_path: Path) -> None:
    extremes.write_parquet(tmp_path / "rows.parquet")
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    with opened_store(catalog, ADMIN, tmp_path, now=extremes.LAST, engine=spark) as store:
        source = Source(name="events", path="rows.parquet", event_time="happened")
        store.apply(*extremes.definitions(source))
        extremes.assert_all_come_back(store)
    catalog.close()


def test_a_session_has_tables_of_its_own(engine: Engine) -> None:
    with engine.session() as one, engine.session() as two:
        one.attach_table("things", pa.table({"n": [1]}))
        two.attach_table("things", pa.table({"n": [2, 3]}))
        one.attach_query("more", "SELECT n + 10 AS n FROM things")
        assert one.query("SELECT n FROM more")["n"].to_pylist() == [11]
        assert two.query("SELECT n FROM things")["n"].to_pylist() == [2, 3]
        with pytest.raises(QueryFailed):
            two.query("SELECT n FROM more")
    with pytest.raises(QueryFailed):
        engine.query("SELECT n FROM things")


@pytest.mark.parametrize(
    "kind", ["int64", "string", "bool", "float64", "us", "ns", "utc", "dictionary", "null"]
)
def test_a_table_keeps_its_types_and_its_order(engine: Engine, kind: str) -> None:
    table = pa.table({"value": VALUES[kind]})
    with engine.session() as session:
        session.attach_table("things", table)
        found = session.query("SELECT value FROM things")
        session.attach_table("things", table.schema.empty_table())
        assert session.query("SELECT count(*) AS n FROM things")["n"].to_pylist() == [0]
    assert [str(v) for v in found["value"].to_pylist()] == [
        str(v) for v in table["value"].to_pylist()
    ]


MOMENTS = pa.array([START_US, None, START_US - 10**15])
VALUES = {
    "int64": pa.array([3, None, 1]),
    "string": pa.array(["b", None, "a"]),
    "bool": pa.array([True, None, False]),
    "float64": pa.array([2.5, None, float("nan")]),
    "us": MOMENTS.cast(pa.timestamp("us")),
    "ns": MOMENTS.cast(pa.timestamp("us")).cast(pa.timestamp("ns")),
    "utc": MOMENTS.cast(pa.timestamp("us", "UTC")),
    "dictionary": pa.array(["b", None, "a"]).dictionary_encode(),
    "null": pa.nulls(2),
}


@pytest.mark.parametrize(
    ("folders", "values"),
    [
        (("1", "-20"), [1, -20]),
        (("0042", "7"), ["0042", "7"]),
        (("1.5", "2"), ["1.5", "2"]),
        (("__HIVE_DEFAULT_PARTITION__", "3"), [None, 3]),
        (("a%20b", "1"), ["a b", "1"]),
        (("2026-01-02", "2026-01-03"), [date(2026, 1, 2), date(2026, 1, 3)]),
        (("9223372036854775808",), ["9223372036854775808"]),
    ],
)
def test_names_of_folders_are_the_same_values(
    engine: Engine, tmp_path: Path, folders: tuple[str, ...], values: list[Any]
) -> None:
    files = []
    for number, folder in enumerate(folders):
        files.append(str(tmp_path / f"env=prod/k={folder}/part.parquet"))
        Path(files[-1]).parent.mkdir(parents=True)
        pq.write_table(pa.table({"n": [number]}), files[-1])
    with engine.session() as session:
        session.attach_parquet("things", files, below=str(tmp_path / "env=prod"))
        found = session.query("SELECT * FROM things ORDER BY n")
        assert found["k"].to_pylist() == values
        assert found.column_names == ["n", "k"]


def test_files_that_are_damaged_or_of_no_type_that_spark_has_are_named(
    spark: SparkEngine, tmp_path: Path
) -> None:
    damaged, strange = tmp_path / "damaged.parquet", str(tmp_path / "strange.parquet")
    pq.write_table(pa.table({"n": range(10_000)}), damaged)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:4] + b"\xff" * 2_000 + content[2_004:])
    spark.attach_parquet("things", [str(damaged)])
    with pytest.raises(SourceUnreadable, match=r"READ_FILE.*damaged\.parquet"):
        spark.query("SELECT sum(n) AS s FROM things")
    pq.write_table(pa.table({"id": pa.array([b"0" * 16], pa.uuid())}), strange)
    with pytest.raises(QueryFailed, match="UUID") as caught:
        spark.attach_parquet("strange", [strange])
    assert "docs/settings.md" in (caught.value.hint or "")


def test_files_that_spark_would_read_as_something_else_are_refused(
    spark: SparkEngine, tmp_path: Path
) -> None:
    first, fewer, finer = (str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.parquet"))
    table = rows(0, 2)
    pq.write_table(table, first)
    pq.write_table(table.drop_columns(["amount"]), fewer)
    pq.write_table(table.set_column(1, "at", table["at"].cast(pa.timestamp("ns"))), finer)
    with pytest.raises(SourceUnreadable, match="no column 'amount'"):
        spark.attach_parquet("payments", [first, fewer])
    with pytest.raises(SourceUnreadable, match=r"'at' is timestamp\[us\] in a.parquet"):
        spark.attach_parquet("payments", [first, finer])


THINGS = pa.table(
    {
        "n": [7, -7, 1],
        "x": [2.5, -2.5, 3.5],
        "s": ["a", None, "c"],
        "t": pa.array([1_769_990_399_999_999, 1_769_904_000_000_000, None], pa.timestamp("us")),
    }
)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("n / 2", [3.5, -3.5, 0.5]),
        ("round(n / 3.0, 12)", [2.333333333333, -2.333333333333, 0.333333333333]),
        ("CAST(x AS BIGINT)", [2, -2, 4]),
        ("TRY_CAST(x AS INTEGER)", [2, -2, 4]),
        ("TRY_CAST(s AS INTEGER)", [None, None, None]),
        ("x::INTEGER + CAST('12' AS BIGINT)", [14, 10, 16]),
        ("CAST(x AS VARCHAR)", ["2.5", "-2.5", "3.5"]),
        ("concat(s, x, n)", ["a2.57", "-2.5-7", "c3.51"]),
        ("concat_ws('-', s, n)", ["a-7", "-7", "c-1"]),
        ("s || '-' || x || n", ["a-2.57", None, "c-3.51"]),
        ("log(100)", [2.0, 2.0, 2.0]),
        ("dayofweek(t)", [0, 0, None]),
        ("isodow(t)", [7, 7, None]),
        ("extract(second FROM t)", [59, 0, None]),
        ("epoch(t)", [1_769_990_399.999999, 1_769_904_000.0, None]),
        ("date_diff('day', t, TIMESTAMP '2026-02-02')", [1, 1, None]),
        ("date_diff('month', TIMESTAMP '2026-01-31', t)", [1, 1, None]),
        ("sha256(s) IS NULL", [False, True, False]),
        ('"N" + 1', [8, -6, 2]),
    ],
)
def test_sql_means_the_same(engine: Engine, sql: str, expected: list[Any]) -> None:
    with engine.session() as session:
        session.attach_table("things", THINGS)
        assert session.query(f"SELECT {sql} AS v FROM things")["v"].to_pylist() == expected


@pytest.mark.parametrize(
    "sql",
    [
        *("hash(s)", "weekday(t)", "monthname(t)", "date_part('dow', t)"),
        *("CAST(x * 1e9 AS VARCHAR)", "'x' || x * 1e9"),
    ],
)
def test_sql_that_would_mean_something_else_is_refused(spark: SparkEngine, sql: str) -> None:
    with spark.session() as session:
        session.attach_table("things", THINGS)
        with pytest.raises(QueryFailed, match="Spark") as caught:
            session.query(f"SELECT {sql} AS v FROM things")
    assert caught.value.hint


def test_two_columns_of_one_name_are_refused(engine: Engine) -> None:
    with engine.session() as session:
        session.attach_table("things", THINGS)
        with pytest.raises(QueryFailed, match="two columns 'x'") as caught:
            session.describe("SELECT *, x * 100 AS x FROM things")
    assert caught.value.hint


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_nanoseconds_are_cut_to_the_last_whole_microsecond(
    engine: Engine, tmp_path: Path, zone: str | None
) -> None:
    """As those of a label frame are: a row is not later than a label of its very moment."""
    nanos = [1_700_000_000_123_456_789, 1_999, 1_000, 1, 0, -1, -1_000, -1_001, None]
    table = pa.table({'paid "at"': pa.array(nanos, pa.timestamp("ns", zone)), "n": range(9)})
    pq.write_table(table, tmp_path / "rows.parquet")
    engine.attach_parquet("nanos", [str(tmp_path / "rows.parquet")])
    found = engine.query('SELECT epoch_us("paid ""at""") AS us FROM nanos ORDER BY n')
    expected = [None if nano is None else nano // 1_000 for nano in nanos]
    assert found["us"].to_pylist() == expected
