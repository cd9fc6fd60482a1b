"""Delta tables: the version that holds is read, and of it only what is needed."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, convert_to_deltalake, write_deltalake

from konveyer import Entity, Feature, FeatureView, JoinKey, PushedColumn, Source
from konveyer.feature_store.etl.pins import Pin
from tests.desk import Desk

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
EVENTS = Source(name="events", path="lake/events", event_time="at")
VALUE = FeatureView(
    name="value",
    entity="client",
    sql="SELECT client_id, events.at AS event_time, value FROM events WHERE country = 'no'",
    features=(Feature(name="value", dtype="int64"),),
)
DEFINITIONS = (CLIENT, EVENTS, VALUE)


def events(values: dict[str, list[int]]) -> pa.Table:
    """The numbers of each country, one for each client."""
    parts = [
        pa.table(
            {
                "client_id": pa.array(range(len(numbers)), pa.int64()),
                "at": pa.array([0] * len(numbers), pa.timestamp("us", tz="UTC")),
                "value": pa.array(numbers, pa.int64()),
                "note": pa.array([f"note {number}" for number in numbers]),
                "country": pa.array([country] * len(numbers)),
            }
        )
        for country, numbers in values.items()
    ]
    return pa.concat_tables(parts)


def append(root: Path, values: dict[str, list[int]], *, partitioned: bool = True) -> None:
    columns = ["country"] if partitioned else None
    table = str(root / "lake/events")
    write_deltalake(table, events(values), mode="append", partition_by=columns)


def released(version: str) -> Pin:
    return Pin(holder="release", training_set=None, tables=(), views=(("value", version),))


def values(desk: Desk) -> list[int]:
    return sorted(value for (value,) in desk.rows("value", "value"))


@pytest.fixture
def applied(desk: Desk) -> Desk:
    append(desk.root, {"no": [1, 2, 3], "se": [4]})
    desk.apply(*DEFINITIONS)
    return desk


def test_each_run_reads_the_version_that_holds(applied: Desk) -> None:
    applied.etl()
    assert values(applied) == [1, 2, 3]
    append(applied.root, {"no": [5]})
    DeltaTable(str(applied.root / "lake/events")).delete(
        "value = 2"
    )  # its file stays in the folder
    applied.etl()
    assert values(applied) == [1, 3, 5]
    assert applied.show("value").sources[0].kind == "delta"


def test_a_folder_of_files_that_becomes_a_table_is_taken_up_by_apply(desk: Desk) -> None:
    folder = desk.root / "lake/events"
    folder.mkdir(parents=True)
    pq.write_table(events({"no": [1, 2]}), folder / "rows.parquet")
    desk.apply(*DEFINITIONS)
    desk.etl()
    convert_to_deltalake(str(folder))
    append(desk.root, {"no": [3]}, partitioned=False)
    error = desk.failure("value")
    assert error["code"] == "source_changed"
    assert "source 'events' was parquet, and is delta" in error["message"]
    assert "'konveyer apply'" in error["hint"]
    (change,) = desk.apply(*DEFINITIONS)
    assert (change.action, change.name, change.before) == ("change", "events", change.after)
    desk.etl()
    assert values(desk) == [1, 2, 3]
    assert desk.apply(*DEFINITIONS) == ()


@pytest.mark.parametrize("changed", ["before it", "with it"])
def test_views_of_releases_read_a_folder_that_became_a_table(desk: Desk, changed: str) -> None:
    folder = desk.root / "lake/events"
    folder.mkdir(parents=True)
    pq.write_table(events({"no": [1, 2]}), folder / "rows.parquet")
    desk.apply(*DEFINITIONS)
    desk.etl()
    version = desk.runs("value")[0].version
    later = CLIENT, replace(EVENTS, created_time="at"), replace(VALUE, as_known=False)
    if changed == "before it":
        desk.apply(*later)
    convert_to_deltalake(str(folder))
    append(desk.root, {"no": [3]}, partitioned=False)
    desk.apply(*later)
    desk.etl("value", pins=[released(version)])
    assert [run.rows for run in desk.runs("value") if run.version == version] == [3, 2]


def test_views_of_releases_read_a_query_whose_name_is_pushed_to_now(applied: Desk) -> None:
    query = Source(name="picked", sql="SELECT * FROM events", event_time="at")
    sql = "SELECT client_id, picked.at AS event_time, value FROM picked WHERE country = 'no'"
    view = replace(VALUE, sql=sql)
    applied.apply(CLIENT, EVENTS, query, view)
    applied.etl()
    version = applied.runs("value")[0].version
    names = {"client_id": "int64", "at": "timestamp", "value": "int64", "country": "string"}
    columns = tuple(PushedColumn(name, dtype) for name, dtype in names.items())
    pushed = Source(name="picked", pushed=columns, event_time="at")
    view = replace(view, as_known=False)
    applied.apply(CLIENT, EVENTS, pushed, view)
    applied.apply(CLIENT, EVENTS, replace(pushed, description="by the till"), view)
    applied.etl("value", pins=[released(version)])
    assert [run.rows for run in applied.runs("value") if run.version == version] == [3, 3]


def test_files_that_a_filter_leaves_out_are_not_opened(applied: Desk) -> None:
    for file in applied.root.glob("lake/events/country=se/*.parquet"):
        file.unlink()
    applied.etl()
    assert values(applied) == [1, 2, 3]


def test_columns_that_a_query_does_not_name_are_not_read(applied: Desk) -> None:
    (file,) = applied.root.glob("lake/events/country=no/*.parquet")
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunks = [group.column(place) for place in range(group.num_columns)]
    note = next(chunk for chunk in chunks if chunk.path_in_schema == "note")
    start = note.dictionary_page_offset or note.data_page_offset
    content = bytearray(file.read_bytes())
    content[start : start + note.total_compressed_size] = bytes(note.total_compressed_size)
    file.write_bytes(content)
    applied.etl()
    assert values(applied) == [1, 2, 3]


def test_a_data_file_that_vanished_fails_the_run(applied: Desk) -> None:
    applied.etl()
    for file in applied.root.glob("lake/events/country=no/*.parquet"):
        file.unlink()
    error = applied.failure("value")
    assert error["code"] == "source_unreadable"
    write_deltalake(str(applied.root / "lake/events"), events({"no": [7]}), mode="overwrite")
    applied.etl()
    assert values(applied) == [7]


def test_a_table_whose_column_changed(applied: Desk) -> None:
    applied.etl()
    rows = pa.table(
        {
            "client_id": pa.array([1], pa.int64()),
            "at": pa.array([0], pa.timestamp("us", tz="UTC")),
            "value": pa.array(["many"]),
            "country": pa.array(["no"]),
        }
    )
    write_deltalake(
        str(applied.root / "lake/events"), rows, mode="overwrite", schema_mode="overwrite"
    )
    error = applied.failure("value")
    assert error["code"] == "source_changed"
    assert "source 'events', column 'value' was int64 and is string" in error["message"]


@pytest.mark.parametrize("content", ["not json", json.dumps({"commitInfo": {}}), ""])
def test_a_damaged_log_is_found_when_definitions_are_applied(desk: Desk, content: str) -> None:
    log = desk.root / "lake/events/_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text(content)
    error = desk.refusal(*DEFINITIONS)
    assert error.code == "source_unreadable"
    assert "'events'" in error.message
    assert str(log.parent) in error.message


def test_an_empty_log_is_no_table(desk: Desk) -> None:
    (desk.root / "lake/events/_delta_log").mkdir(parents=True)
    assert desk.refusal(*DEFINITIONS).code == "source_unreadable"


def test_decimals_and_lists(desk: Desk) -> None:
    table = pa.table(
        {
            "client_id": [1, 2],
            "at": pa.array([0, 0], pa.timestamp("us", tz="UTC")),
            "price": pa.array([Decimal("0.10"), None], pa.decimal128(12, 2)),
            "tags": pa.array([["a", None], []]),
        }
    )
    write_deltalake(desk.root / "lake/events", table)
    view = FeatureView(
        name="value",
        entity="client",
        sql="SELECT client_id, events.at AS event_time, price, tags FROM events",
        features=(
            Feature(name="price", dtype="decimal(18,2)"),
            Feature(name="tags", dtype="list<string>"),
        ),
    )
    desk.apply(CLIENT, EVENTS, view)
    desk.etl()
    assert desk.rows("value", "price", "tags") == [(Decimal("0.10"), ["a", None]), (None, [])]
