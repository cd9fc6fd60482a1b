"""Every source is checked when it is applied, and runs do not disturb each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureView, JoinKey, Source
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.definition import Definition
from tests.desk import Desk

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
EVENTS = Source(name="events", path="events.parquet", event_time="at", created_time="loaded")
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="events",
    aggregations=(Aggregation(column="amount", function="sum", over="7d"),),
)


@pytest.fixture(autouse=True)
def events(desk: Desk) -> Path:
    file = desk.root / "events.parquet"
    table = pa.table(
        {
            "client_id": pa.array([1, 2], pa.int64()),
            "at": pa.array([0, 0], pa.timestamp("us")),
            "loaded": pa.array([0, 0], pa.date32()),
            "amount": pa.array([1.5, 2.5]),
            "city": pa.array(["Oslo", "Rome"]),
        }
    )
    pq.write_table(table, file)
    return file


def test_a_date_is_a_time(desk: Desk) -> None:
    checked = desk.check(CLIENT, EVENTS)
    assert checked.sources["events"].columns["loaded"] == "timestamp"


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (replace(EVENTS, path="gone.parquet"), "source_file_missing", "gone.parquet"),
        (
            replace(EVENTS, event_time="happened"),
            "unknown_column",
            "event time: there is no column",
        ),
        (replace(EVENTS, event_time="amount"), "wrong_type", "'amount' must be timestamp"),
        (
            replace(EVENTS, created_time="load"),
            "unknown_column",
            "created time: there is no column",
        ),
        (replace(EVENTS, created_time="city"), "wrong_type", "'city' must be timestamp"),
        (
            Source(name="events", sql="SELECT city AS at FROM base", event_time="at"),
            "wrong_type",
            "'at' must be timestamp, but it is string",
        ),
        (
            Source(name="events", sql="SELECT amuont FROM base"),
            "sql_invalid",
            "amuont",
        ),
    ],
)
def test_a_source_that_no_view_reads_is_checked(
    desk: Desk, source: Source, code: str, said: str
) -> None:
    base = replace(EVENTS, name="base")
    error = desk.refusal(CLIENT, base, source)
    assert error.code == code
    assert "Source 'events'" in error.message
    assert said in error.message


@pytest.mark.parametrize(
    ("key", "code", "said"),
    [
        (
            JoinKey("client_id", "string"),
            "wrong_type",
            "'client_id' must be string, but it is int64",
        ),
        (JoinKey("city", "int64"), "wrong_type", "'city' must be int64, but it is string"),
        (JoinKey("klient_id", "int64"), "unknown_column", "there is no column 'klient_id'"),
    ],
)
def test_a_key_that_cannot_be_joined(desk: Desk, key: JoinKey, code: str, said: str) -> None:
    error = desk.refusal(replace(CLIENT, join_keys=(key,)), EVENTS, SPEND)
    assert error.code == code
    assert "Source 'events', join key of feature view 'spend'" in error.message
    assert said in error.message


@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        ("SELECT * FROM evnets", "unknown_reference", "'evnets'"),
        ("SELECT * FROM read_parquet('events.parquet')", "sql_invalid", "READ_PARQUET"),
        ("SELECT * FROM 'events.parquet'", "unknown_reference", "'events.parquet'"),
        ("SELECT * FROM crm.events", "sql_invalid", "crm.events"),
        ("SELECT * FROM events, LATERAL glob('/*') AS t", "sql_invalid", "GLOB"),
        ("SELECT * FROM", "sql_invalid", "does not parse"),
        ("DELETE FROM events", "sql_invalid", "exactly one SELECT"),
        ("SELECT * FROM events WHERE at > now()", "sql_invalid", "NOW()"),
        ("SELECT *, current_date - at AS days FROM events", "sql_invalid", "CURRENT_DATE"),
        ("SELECT *, age(at) AS age FROM events", "sql_invalid", 'AGE("at")'),
        ("SELECT *, random() AS x FROM events", "sql_invalid", "RANDOM()"),
        ("SELECT * FROM events USING SAMPLE 10%", "sql_invalid", "another each time"),
    ],
)
@pytest.mark.parametrize("kind", ["source", "view"])
def test_sql_that_must_not_run(desk: Desk, kind: str, sql: str, code: str, said: str) -> None:
    definition: Definition = Source(name="bad", sql=sql)
    if kind == "view":
        features = (Feature(name="amount", dtype="float64"),)
        definition = FeatureView(name="bad", entity="client", sql=sql, features=features)
    with pytest.raises(KonveyerError) as caught:
        desk.check(CLIENT, EVENTS, definition)
    assert caught.value.code == code
    assert f"{kind} 'bad'" in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("SELECT *, amount * 100 AS amount FROM events", "amount"),
        ("SELECT *, city AS Amount FROM events", "amount"),
        ("SELECT * FROM events JOIN events AS b ON events.city = b.city;  -- all", "client_id"),
    ],
)
def test_two_columns_of_one_name_are_refused(desk: Desk, sql: str, column: str) -> None:
    error = desk.refusal(CLIENT, EVENTS, Source(name="bad", sql=sql))
    assert error.message == f"Source 'bad': It gives two columns '{column}'."
    features = (Feature(name="amount", dtype="float64"),)
    view = FeatureView(name="bad", entity="client", sql=sql, features=features)
    error = desk.refusal(CLIENT, EVENTS, view)
    assert error.message == f"Feature view 'bad': It gives two columns '{column}'."
    assert error.code == "sql_invalid"


@pytest.mark.parametrize(
    ("options", "feature"),
    [({"where": "amuont > 1"}, "n"), ({"by": "amuont", "values": ("1", "2")}, "n_1")],
)
def test_a_condition_that_does_not_fit_is_told_with_its_feature(
    desk: Desk, options: dict[str, Any], feature: str
) -> None:
    wrong = Aggregation(function="count", over="7d", name="n", **options)
    error = desk.refusal(CLIENT, EVENTS, replace(SPEND, aggregations=(*SPEND.aggregations, wrong)))
    assert error.code == "sql_invalid"
    assert error.message.startswith(f"Feature view 'spend': feature '{feature}', where=")
    assert "amuont" in error.message


def test_sql_may_make_its_own_series(desk: Desk) -> None:
    days = Source(name="days", sql="SELECT day FROM range(3) AS d(day), unnest([1, 2])")
    assert desk.check(days).sources["days"].columns == {"day": "int64"}
    sql = "SELECT part FROM events, LATERAL unnest([amount, 1]) AS u(part), LATERAL (SELECT 1)"
    parts = Source(name="parts", sql=sql)
    assert desk.check(EVENTS, parts).sources["parts"].columns == {"part": "float64"}


def test_names_that_are_words_of_sql(desk: Desk, events: Path) -> None:
    table = pq.read_table(events).rename_columns(["order", "at", "end", "group", "city"])
    pq.write_table(table, events)
    entity = Entity(name="client", join_keys=(JoinKey("order", "int64"),))
    source = replace(EVENTS, name="select", created_time="end")
    over = (
        Aggregation(column="group", function="sum", over="7d"),
        Aggregation(column="group", function="count", over="7d"),
    )
    desk.apply(entity, source, replace(SPEND, source="select", aggregations=over))
    desk.etl()
    assert sorted(desk.rows("spend", "order", "of_group")) == [(1, 1.5), (2, 2.5)]


def test_runs_at_the_same_time_have_tables_of_their_own(desk: Desk) -> None:
    """`konveyer up` runs several flows in threads, over one engine."""
    desk.apply(CLIENT, EVENTS, SPEND, replace(SPEND, name="again"))

    def run(view: str) -> None:
        for _ in range(5):
            desk.etl(view)

    with ThreadPoolExecutor() as pool:
        for ended in [pool.submit(run, view) for view in ("spend", "again")]:
            ended.result()
    assert desk.rows("spend", "of_amount") == desk.rows("again", "of_amount") == [(1.5,), (2.5,)]


def test_what_a_killed_run_was_reading_is_removed_by_the_next(desk: Desk) -> None:
    place = desk.root / "state/reading"
    hold = f"""
import sys
from pathlib import Path
from konveyer.feature_store.sources.staging import staging_folder

with staging_folder(Path({str(place)!r})) as folder:
    (folder / "events.parquet").touch()
    print(folder.name, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", hold]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        desk.apply(CLIENT, EVENTS, SPEND)
        desk.etl()
        assert desk.staged() == [name]
        process.kill()
    assert desk.staged() == [name]
    desk.etl()
    assert desk.staged() == []
