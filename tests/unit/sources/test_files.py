"""Parquet files: which are read, and what happens when they are damaged, gone or changed."""

import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureView, JoinKey, Source
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from tests.desk import Desk

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
PAYMENTS = Source(name="payments", path="payments", event_time="paid_at")
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="30d"),),
)
DEFINITIONS = (CLIENT, PAYMENTS, SPEND)
DAY = 86_400_000_000


def payments(amounts: pa.Array, *, first: int = 0, **more: pa.Array) -> pa.Table:
    """One payment for each amount, by clients 0, 1, 2, on 1 January 2026."""
    count = len(amounts)
    start = 1_767_225_600_000_000
    return pa.table(
        {
            "client_id": pa.array([(first + row) % 3 for row in range(count)], pa.int64()),
            "paid_at": pa.array([start + row for row in range(count)], pa.timestamp("us")),
            "amount": amounts,
            **more,
        }
    )


def write(root: Path, name: str, table: pa.Table) -> Path:
    file = root / "payments" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


@pytest.fixture
def file(desk: Desk) -> Path:
    return write(desk.root, "a.parquet", payments(pa.array([1, 2, 3])))


def amounts(desk: Desk) -> list[int]:
    return sorted(amount for (amount,) in desk.rows("spend", "of_amount"))


def test_a_folder_is_all_its_finished_files(desk: Desk, file: Path) -> None:
    write(desk.root, "year=2026/b.parquet", payments(pa.array([4])))
    write(desk.root, "of_spark.parquet/part-0.parquet", payments(pa.array([5])))
    write(desk.root, "_temporary/c.parquet", payments(pa.array([100])))
    write(desk.root, ".hidden.parquet", payments(pa.array([100])))
    desk.apply(*DEFINITIONS)
    desk.etl()
    assert amounts(desk) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("payments/b*.parquet", [4]),
        ("payments/*.parquet", [1, 2, 3, 4]),
        ("payments/**/*.parquet", [1, 2, 3, 4]),
        ("payments/_*.parquet", [100]),
        ("payments/_temporary/*.parquet", [100]),
    ],
)
def test_a_glob_is_what_it_matches(desk: Desk, file: Path, path: str, found: list[int]) -> None:
    write(desk.root, "b.parquet", payments(pa.array([4])))
    write(desk.root, "_tmp.parquet", payments(pa.array([100])))
    write(desk.root, "_temporary/b.parquet", payments(pa.array([100])))
    desk.apply(CLIENT, replace(PAYMENTS, path=path), SPEND)
    desk.etl()
    assert amounts(desk) == found


@pytest.mark.parametrize("path", ["a.parquet", "lake", "*/*.parquet"])
def test_folders_above_a_source_are_no_columns(desk: Desk, path: str) -> None:
    write(desk.root, "amount=7/a.parquet", payments(pa.array([1, 2])))
    write(desk.root, "amount=7/lake/a.parquet", payments(pa.array([1, 2])))
    desk.apply(CLIENT, replace(PAYMENTS, path=f"payments/amount=7/{path}"), SPEND)
    desk.etl()
    assert amounts(desk) == [1, 2]


@pytest.mark.parametrize("path", ["payments", "payments/*/*.parquet"])
def test_folders_below_a_source_are_columns(desk: Desk, path: str) -> None:
    for amount in (7, 8):
        rows = payments(pa.array([1])).drop_columns("amount")
        write(desk.root, f"amount={amount}/a.parquet", rows)
    desk.apply(CLIENT, replace(PAYMENTS, path=path), SPEND)
    desk.etl()
    assert amounts(desk) == [7, 8]


@pytest.mark.parametrize("path", ["lake", "*/*/*.parquet"])
def test_folders_below_a_source_alone_are_columns(desk: Desk, path: str) -> None:
    for amount in (7, 8):
        rows = payments(pa.array([1])).drop_columns("amount")
        write(desk.root, f"env=prod/lake/amount={amount}/a.parquet", rows)
    desk.apply(CLIENT, replace(PAYMENTS, path=f"payments/env=prod/{path}"), SPEND)
    desk.etl()
    assert amounts(desk) == [7, 8]
    assert list(desk.show("spend").sources[0].columns) == ["client_id", "paid_at", "amount"]


@pytest.mark.parametrize("key", ["Amount", "day"])
def test_a_folder_above_that_is_named_like_a_column_is_refused(desk: Desk, key: str) -> None:
    write(desk.root, f"{key}=7/lake/day=1/a.parquet", payments(pa.array([1, 2])))
    error = desk.refusal(CLIENT, replace(PAYMENTS, path=f"payments/{key}=7/lake"), SPEND)
    assert error.code == "source_unreadable"
    assert f"'payments' has a column '{key}', and a folder above it" in error.message


@pytest.mark.parametrize("path", ["nothing.parquet", "nothing/*.parquet", "payments"])
def test_a_place_without_files(desk: Desk, path: str) -> None:
    (desk.root / "payments").mkdir()
    error = desk.refusal(CLIENT, replace(PAYMENTS, path=path))
    assert error.code == "source_file_missing"
    assert "'payments'" in error.message
    assert path in error.message


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None])
def test_a_damaged_file_is_found_when_definitions_are_applied(
    desk: Desk, file: Path, content: bytes | None
) -> None:
    whole = file.read_bytes()
    second = file.with_name("b.parquet")
    second.write_bytes(whole[: len(whole) // 2] if content is None else content)
    error = desk.refusal(*DEFINITIONS)
    assert error.code == "source_unreadable"
    assert "'payments'" in error.message
    assert str(second) in error.message


def test_a_page_that_is_damaged_later_fails_the_run_and_nothing_else(
    desk: Desk, file: Path
) -> None:
    big = payments(pa.array([row * 7919 % 100_003 for row in range(200_000)]))
    desk.apply(*DEFINITIONS)
    desk.etl()
    pq.write_table(big, file, row_group_size=20_000)
    whole = bytearray(file.read_bytes())
    middle = len(whole) // 2
    for place in range(middle, middle + 3000):
        whole[place] ^= 0xFF
    good = pq.ParquetFile(file).metadata
    file.write_bytes(whole)
    assert pq.ParquetFile(file).metadata.num_rows == good.num_rows  # the footer is as it was
    error = desk.failure("spend")
    assert error["code"] == "source_unreadable"
    assert "Source 'payments'" in error["message"]
    assert str(file) in error["message"]
    pq.write_table(big, file)
    desk.etl()
    assert len(amounts(desk)) == 200_000


def test_decimals_that_would_be_rounded_are_refused(desk: Desk) -> None:
    wide = pa.array([Decimal(1), Decimal(2)], pa.decimal256(50, 2))
    write(desk.root, "a.parquet", payments(wide))
    error = desk.refusal(*DEFINITIONS)
    assert error.code == "unsupported_type"
    assert "Source 'payments', column 'amount' has type decimal256(50, 2)" in error.message
    few = pa.array([Decimal(1), Decimal(2)], pa.decimal256(12, 2))
    write(desk.root, "a.parquet", payments(few))
    desk.apply(*DEFINITIONS)
    desk.etl()
    assert amounts(desk) == [1, 2]


def test_a_file_that_vanished_fails_the_run_until_it_is_back(desk: Desk, file: Path) -> None:
    desk.apply(*DEFINITIONS)
    desk.etl()
    away = desk.root / "away"
    shutil.move(file, away)
    error = desk.failure("spend")
    assert error["code"] == "source_file_missing"
    shutil.move(away, file)
    desk.etl()
    assert amounts(desk) == [1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (payments(pa.array(["1", "2", "3"])), "'amount' was int64 and is string"),
        (payments(pa.array([1.5, 2.5, 3.5])), "'amount' was int64 and is float64"),
        (payments(pa.array([1, 2, 3])).drop_columns("amount"), "'amount' was int64 and is gone"),
        (
            payments(pa.array([1, 2, 3])).set_column(0, "client_id", pa.array(["a", "b", "c"])),
            "'client_id' was int64 and is string",
        ),
    ],
)
def test_a_column_that_changed_under_the_definition(
    desk: Desk, file: Path, changed: pa.Table, said: str
) -> None:
    desk.apply(*DEFINITIONS)
    desk.etl()
    whole = file.read_bytes()
    pq.write_table(changed, file)
    error = desk.failure("spend")
    assert error["code"] == "source_changed"
    assert f"source 'payments', column {said}" in error["message"]
    file.write_bytes(whole)
    desk.etl()
    assert amounts(desk) == [1, 2, 3]


def test_a_changed_column_is_named_through_sql_sources(desk: Desk, file: Path) -> None:
    doubled = Source(
        name="doubled",
        sql="SELECT client_id, paid_at, 2 * amount AS amount FROM payments",
        event_time="paid_at",
    )
    view = replace(SPEND, source="doubled")
    desk.apply(CLIENT, PAYMENTS, doubled, view)
    desk.etl()
    pq.write_table(
        payments(pa.array([1, 2, 3])).rename_columns(["client_id", "paid_at", "x"]), file
    )
    error = desk.failure("spend")
    assert error["code"] == "source_changed"
    assert "source 'payments', column 'amount' was int64 and is gone" in error["message"]


def counted(**condition: Any) -> FeatureView:
    paid = Aggregation(function="count", over="30d", name="paid", **condition)
    return replace(SPEND, aggregations=(paid,))


CODED = "SELECT client_id, paid_at, CAST(kind AS VARCHAR) || 'x' AS amount FROM "
LAST = replace(SPEND, aggregations=(Aggregation(column="amount", function="last", over="30d"),))


@pytest.mark.parametrize(
    "definitions",
    [
        (PAYMENTS, counted(by="kind", values=("1", "2"))),
        (PAYMENTS, counted(where="CAST(KIND AS VARCHAR) = '1'")),
        (
            PAYMENTS,
            FeatureView(
                name="spend",
                entity="client",
                sql=CODED.replace("at,", "at AS event_time,") + "(SELECT * FROM payments)",
                features=(Feature(name="amount", dtype="string"),),
            ),
        ),
        (
            replace(PAYMENTS, name="raw"),
            Source(name="payments", sql=CODED + "raw", event_time="paid_at"),
            LAST,
        ),
    ],
    ids=["by", "where", "view", "source"],
)
def test_a_column_of_which_only_conditions_and_sql_make_something_keeps_its_type(
    desk: Desk, file: Path, definitions: tuple[Definition, ...]
) -> None:
    """A text made of 1 is another one than that of 1.0, though the feature's type stays."""
    pq.write_table(payments(pa.array([1, 2, 3]), kind=pa.array([1, 2, 1])), file)
    desk.apply(CLIENT, *definitions)
    desk.etl()
    before = desk.readable("spend")
    desk.apply(CLIENT, *definitions)
    assert desk.readable("spend") == before

    pq.write_table(payments(pa.array([1, 2, 3]), kind=pa.array([1.0, 2.0, 1.0])), file)
    error = desk.failure("spend")
    assert error["code"] == "source_changed"
    assert "column 'kind' was int64 and is float64" in error["message"]
    desk.apply(CLIENT, *definitions)
    assert desk.readable("spend") is None
    desk.etl()


@pytest.mark.parametrize("sql", [None, "SELECT *, amount > 0 AS paid FROM raw"])
def test_columns_that_no_view_needs_may_come_and_go(
    desk: Desk, file: Path, sql: str | None
) -> None:
    note = pa.array(["x", "y", "z"])
    pq.write_table(payments(pa.array([1, 2, 3]), note=note), file)
    source = replace(PAYMENTS, path=None if sql else PAYMENTS.path, sql=sql)
    definitions = (CLIENT, replace(PAYMENTS, name="raw"), source, SPEND)
    desk.apply(*definitions)
    pq.write_table(payments(pa.array([1, 2, 3]), extra=pa.array([1, 2, 3])), file)
    desk.etl()
    assert amounts(desk) == [1, 2, 3]
    desk.apply(*definitions)
    assert amounts(desk) == [1, 2, 3]


def test_applying_again_accepts_other_types_as_a_new_version(desk: Desk, file: Path) -> None:
    """What was published with the old types stays readable by those who hold the old version."""
    desk.apply(*DEFINITIONS)
    desk.etl()
    pq.write_table(payments(pa.array([1.5, 2.5, 3.5])), file)
    desk.failure("spend")
    desk.apply(*DEFINITIONS)
    assert desk.readable("spend") is None
    desk.etl()
    assert amounts(desk) == [1.5, 2.5, 3.5]
    shown = desk.show("spend")
    assert [entry.active for entry in shown.versions] == [True, False]
    assert shown.sources[0].columns["amount"] == "float64"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (pa.array([1.5]), "int64 in a.parquet and double in b.parquet"),
        (pa.array(["1"]), "int64 in a.parquet and string in b.parquet"),
    ],
)
def test_files_of_one_source_must_agree(
    desk: Desk, file: Path, other: pa.Array, named: str
) -> None:
    """An engine would round 1.5 to the type of the first file."""
    write(desk.root, "b.parquet", payments(other))
    error = desk.refusal(*DEFINITIONS)
    assert error.code == "wrong_type"
    assert f"'payments', column 'amount' is {named}" in error.message


def test_whole_numbers_of_different_widths_agree(desk: Desk, file: Path) -> None:
    write(desk.root, "b.parquet", payments(pa.array([4], pa.int16())))
    desk.apply(*DEFINITIONS)
    desk.etl()
    assert amounts(desk) == [1, 2, 3, 4]


def test_a_column_that_a_later_file_lacks(desk: Desk, file: Path) -> None:
    write(desk.root, "b.parquet", payments(pa.array([4])).drop_columns("amount"))
    desk.apply(*DEFINITIONS)
    error = desk.failure("spend")
    assert error["code"] == "source_unreadable"
    assert "amount" in error["message"]
    assert "b.parquet" in error["message"]


def test_a_column_that_the_first_file_lacks_is_not_blamed_on_the_sql(
    desk: Desk, file: Path
) -> None:
    view = FeatureView(
        name="profile",
        entity="client",
        sql="SELECT client_id, paid_at AS event_time, note FROM payments",
        features=(Feature(name="note", dtype="string"),),
    )
    write(desk.root, "b.parquet", payments(pa.array([1, 2]), note=pa.array(["31", "32"])))
    error = desk.refusal(CLIENT, PAYMENTS, view)
    assert "correct the SQL" not in (error.hint or "")
    assert "'payments' has 'note' in b.parquet, but not in a.parquet" in (error.hint or "")


def test_a_value_that_sql_cannot_cast_fails_the_run(desk: Desk, file: Path) -> None:
    text = FeatureView(
        name="profile",
        entity="client",
        sql="SELECT client_id, paid_at AS event_time, CAST(note AS BIGINT) AS age FROM payments",
        features=(Feature(name="age", dtype="int64"),),
    )
    pq.write_table(payments(pa.array([1, 2]), note=pa.array(["31", "32"])), file)
    desk.apply(CLIENT, PAYMENTS, text)
    desk.etl()
    pq.write_table(payments(pa.array([1, 2]), note=pa.array(["31", "old"])), file)
    error = desk.failure("profile")
    assert error["code"] == "query_failed"
    assert "'old'" in error["message"]
    assert "note" in error["message"]


def test_lists_go_together_whatever_their_items_are_called(desk: Desk) -> None:
    seen = FeatureView(
        name="seen",
        entity="client",
        sql="SELECT client_id, paid_at AS event_time, seen FROM payments",
        features=(Feature(name="seen", dtype="list<float64>"),),
    )
    lists = [[1.5, None], [], None]
    for number, item in enumerate(("item", "l")):
        field = pa.field(item, pa.float64())
        table = payments(pa.array([1, 2, 3]), seen=pa.array(lists, pa.list_(field)))
        file = desk.root / "payments" / f"{number}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table, file, use_compliant_nested_type=False)
    desk.apply(CLIENT, PAYMENTS, seen)
    desk.etl()
    assert [row[0] for row in desk.rows("seen", "seen")] == [x for x in lists for _ in range(2)]

    write(desk.root, "2.parquet", payments(pa.array([1]), seen=pa.array([["a"]])))
    error = desk.refusal(CLIENT, PAYMENTS, seen)
    assert error.code == "wrong_type"
    assert "column 'seen' is list<item: double> in 0.parquet" in error.message


@pytest.mark.parametrize("how", ["in place", "replaced", "gone"])
def test_a_file_that_changes_while_it_is_read_fails_the_run(
    desk: Desk, file: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.apply(*DEFINITIONS)
    desk.etl()
    content, map_rows = file.read_bytes(), DuckDBEngine.map_rows

    def meanwhile(engine: DuckDBEngine, *rows: Any, **options: Any) -> Any:
        done = map_rows(engine, *rows, **options)
        match how:
            case "in place":
                with file.open("r+b") as opened:
                    opened.write(content)
            case "replaced":
                (file.parent / "_new").write_bytes(content)
                (file.parent / "_new").replace(file)
            case _:
                file.unlink()
        return done

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBEngine, "map_rows", meanwhile)
        error = desk.failure("spend")
    assert error["code"] == "source_changed_meanwhile"
    assert str(file) in error["message"]
    file.write_bytes(content)
    desk.etl()
