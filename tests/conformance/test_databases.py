"""One suite for every database that a source can name, on real servers and files."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from konveyer import Aggregation, Entity, Feature, FeatureView, JoinKey, Source
from konveyer.core.settings import parse_settings
from tests.desk import Desk

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
PAYMENTS = Source(
    name="payments",
    database="crm",
    table="payments",
    columns={
        "client_id": "int64",
        "paid_at": "timestamp",
        "amount": "float64",
        "note": "string",
        "online": "bool",
    },
    event_time="paid_at",
)
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="30d"),),
)
LAST = FeatureView(
    name="last",
    entity="client",
    sql="SELECT client_id, paid_at AS event_time, amount, note, online FROM payments",
    features=(
        Feature(name="amount", dtype="float64"),
        Feature(name="note", dtype="string"),
        Feature(name="online", dtype="bool"),
    ),
)
DEFINITIONS = (CLIENT, PAYMENTS, SPEND, LAST)
ROWS = [
    (1, "2026-01-01 00:00:00", 1.5, "café", True),
    (2, "2026-01-02 10:00:00.25", None, None, False),
    (3, "2026-01-03 00:00:00", -2.0, "", None),
]
TYPES = "(client_id bigint, paid_at timestamp, amount double precision, note text, online boolean)"
INSERT = "INSERT INTO payments VALUES (%s, %s, %s, %s, %s)"


@dataclass(frozen=True)
class Database:
    """A database with a table of payments; `run` changes it from outside."""

    url: str
    run: Callable[..., None]


@pytest.fixture
def postgresql(postgres_url: str) -> Iterator[Database]:
    url = postgres_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:

        def run(sql: str, *rows: tuple[Any, ...]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(sql, rows) if rows else cursor.execute(sql)

        run("DROP SCHEMA public CASCADE")
        run("CREATE SCHEMA public")
        yield Database(url, run)


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    def run(sql: str, *rows: tuple[Any, ...]) -> None:
        with sqlite3.connect(tmp_path / "crm.db") as connection:
            if rows:
                connection.executemany(sql.replace("%s", "?"), rows)
            else:
                connection.execute(sql)
        connection.close()

    return Database("sqlite:///crm.db", run)


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest) -> Database:
    database: Database = request.getfixturevalue(request.param)
    database.run(f"CREATE TABLE payments {TYPES}")
    database.run(INSERT, *ROWS)
    return database


@pytest.fixture
def crm(desk: Desk, database: Database) -> Desk:
    return desk.with_databases(crm=database.url)


def read(desk: Desk) -> list[tuple[Any, ...]]:
    found = desk.rows("last", "client_id", "event_time", "amount", "note", "online")
    return [(key, at.isoformat(), *rest) for key, at, *rest in found]


def test_a_table_is_read_with_its_types(crm: Desk) -> None:
    crm.apply(*DEFINITIONS)
    crm.etl()
    assert read(crm) == [
        (1, "2026-01-01T00:00:00+00:00", 1.5, "café", True),
        (2, "2026-01-02T10:00:00.250000+00:00", None, None, False),
        (3, "2026-01-03T00:00:00+00:00", -2.0, "", None),
    ]
    assert crm.staged() == []
    assert crm.show("last").sources[0].kind == "database"
    assert crm.show("last").sources[0].reads == "crm: payments"


def test_a_query_is_read_in_the_words_of_the_database(crm: Desk) -> None:
    query = "SELECT * FROM payments WHERE note LIKE 'caf%' ORDER BY client_id;"
    crm.apply(CLIENT, replace(PAYMENTS, table=None, query=query), LAST)
    crm.etl()
    assert [row[0] for row in read(crm)] == [1]


def test_a_view_reads_a_database_once_however_often_it_needs_the_rows(crm: Desk) -> None:
    """Each reading gives other numbers."""
    query = "SELECT client_id, paid_at, random() * 1.0 AS amount, note, online FROM payments"
    twice = replace(
        LAST,
        sql="""
            SELECT client_id, p.paid_at AS event_time, p.amount - q.amount AS amount,
                   p.note, p.online
            FROM payments AS p JOIN payments AS q USING (client_id)
        """,
    )
    crm.apply(CLIENT, replace(PAYMENTS, table=None, query=query), twice)
    crm.etl()
    assert [row[2] for row in read(crm)] == [0, 0, 0]


def test_a_sparse_column_keeps_its_type(crm: Desk, database: Database) -> None:
    """Also when its first value comes after many rows without one."""
    database.run("DELETE FROM payments")
    database.run(INSERT, *[(n, "2026-01-01", None, None, None) for n in range(70_000)])
    database.run(INSERT, (70_000, "2026-01-01", 0.1234567890123, "late", True))
    crm.apply(*DEFINITIONS)
    crm.etl()
    assert read(crm)[-1][2:] == (0.1234567890123, "late", True)


def test_an_empty_table_gives_no_rows(crm: Desk, database: Database) -> None:
    database.run("DELETE FROM payments")
    crm.apply(*DEFINITIONS)
    crm.etl()
    assert read(crm) == []


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        (replace(PAYMENTS, database="cmr"), "database_unknown", "'cmr'"),
        (replace(PAYMENTS, table="paymnets"), "database_refused", "paymnets"),
        (replace(PAYMENTS, table="nowhere.payments"), "database_refused", "nowhere.payments"),
        (replace(PAYMENTS, table=None, query="SELEC 1"), "database_refused", "syntax error"),
        (
            replace(PAYMENTS, columns=PAYMENTS.columns | {"amuont": "float64"}),
            "unknown_column",
            "'amuont'",
        ),
        (replace(PAYMENTS, event_time="note"), "wrong_type", "'note' must be timestamp"),
    ],
)
def test_what_the_database_has_not_is_found_when_definitions_are_applied(
    crm: Desk, source: Source, code: str, said: str
) -> None:
    error = crm.refusal(CLIENT, source)
    assert error.code == code
    assert "Source 'payments'" in error.message
    assert said in error.message


def test_a_query_cannot_write(crm: Desk) -> None:
    for query in ("DELETE FROM payments RETURNING *", "SELECT 1; DROP TABLE payments"):
        error = crm.refusal(CLIENT, replace(PAYMENTS, table=None, query=query), LAST)
        assert error.code == "database_refused"
    crm.apply(*DEFINITIONS)
    crm.etl()
    assert len(read(crm)) == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("DROP TABLE payments", "database_refused"),
        ("ALTER TABLE payments RENAME COLUMN amount TO total", "unknown_column"),
    ],
)
def test_a_table_that_changed_after_it_was_applied(
    crm: Desk, database: Database, change: str, code: str
) -> None:
    crm.apply(*DEFINITIONS)
    crm.etl()
    before = read(crm)
    database.run(change)
    error = crm.failure("last")
    assert error["code"] in (code, "source_changed")
    assert "'payments'" in error["message"]
    assert read(crm) == before


def test_an_unset_variable_is_named(crm: Desk) -> None:
    error = crm.with_databases(crm="postgresql://etl:${KONVEYER_TEST_UNSET}@127.0.0.1/crm").refusal(
        CLIENT, PAYMENTS
    )
    assert error.code == "variable_missing"
    assert "KONVEYER_TEST_UNSET" in error.message


def test_a_url_of_another_kind_is_refused_without_showing_it(crm: Desk) -> None:
    error = crm.with_databases(crm="oracle://etl:secret@127.0.0.1/crm").refusal(CLIENT, PAYMENTS)
    assert error.code == "database_unknown"
    assert "secret" not in str(error)


# What only one of them can show.


@pytest.fixture
def bank(desk: Desk, postgresql: Database) -> tuple[Desk, Database]:
    postgresql.run(f"CREATE TABLE payments {TYPES}")
    postgresql.run(INSERT, *ROWS)
    return desk.with_databases(crm=postgresql.url), postgresql


def test_postgresql_needs_no_declaration(bank: tuple[Desk, Database]) -> None:
    desk, database = bank
    database.run("CREATE TYPE channel AS ENUM ('web', 'shop')")
    database.run("CREATE SCHEMA sales")
    database.run(
        "CREATE TABLE sales.orders AS SELECT 7::int AS client_id, now() AS paid_at, "
        "12.34::numeric(12, 2) AS amount, 'web'::channel AS note, true AS online, "
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS id, '{}'::jsonb AS more, "
        "ARRAY[1] AS list, '10:00'::time AS clock, DATE '2026-01-01' AS day"
    )
    database.run("UPDATE sales.orders SET paid_at = '2026-01-02 03:00:00+03'")
    orders = Source(
        name="payments",
        database="crm",
        table="sales.orders",
        event_time="paid_at",
        created_time="day",
    )
    amount = Feature(name="amount", dtype="decimal(12,2)")
    last = replace(LAST, features=(amount, *LAST.features[1:]), as_known=False)
    desk.apply(CLIENT, orders, last)
    desk.etl()
    assert read(desk) == [(7, "2026-01-02T00:00:00+00:00", Decimal("12.34"), "web", True)]
    assert desk.show("last").sources[0].columns == {
        "client_id": "int64",
        "paid_at": "timestamp",
        "amount": "decimal(12,2)",
        "note": "string",
        "online": "bool",
        "id": "string",
        "more": "string",
        "list": "list<int64>",
        "clock": "time64[us]",
        "day": "timestamp",
    }


AMOUNTS = FeatureView(
    name="amounts",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="last", over="unbounded"),),
)


def test_decimals_are_declared(database: Database, desk: Desk) -> None:
    """SQLite keeps fractions of `numeric` columns as doubles."""
    database.run("CREATE TABLE bills (client_id bigint, paid_at timestamp, amount numeric(12, 2))")
    values = ["12.34", "-0.10", None, "7", "1234567890.12"]
    rows = [(n, f"2026-01-0{n} 00:00:00", value) for n, value in enumerate(values, 1)]
    database.run("INSERT INTO bills VALUES (%s, %s, %s)", *rows)
    columns = {"client_id": "int64", "paid_at": "timestamp", "amount": "decimal(18,2)"}
    bills = replace(PAYMENTS, table="bills", columns=columns)
    connected = desk.with_databases(crm=database.url)
    connected.apply(CLIENT, bills, AMOUNTS)
    connected.etl()
    found = [amount for (amount,) in connected.rows("amounts", "of_amount")]
    assert found == [None if value is None else Decimal(value) for value in values]

    database.run("UPDATE bills SET amount = 7.5")
    connected.apply(CLIENT, replace(bills, columns={**columns, "amount": "decimal(12,1)"}), AMOUNTS)
    database.run("UPDATE bills SET amount = 7.51")
    error = connected.failure("amounts")
    assert error["code"] == "source_value_invalid"
    assert "is not decimal(12,1)" in error["message"]


def test_a_fraction_of_sqlite_is_not_rounded_to_what_it_shows(desk: Desk, sqlite: Database) -> None:
    sqlite.run("CREATE TABLE payments (client_id bigint, paid_at text, amount real)")
    sqlite.run("INSERT INTO payments VALUES (1, '2026-01-01', 0.3)")
    columns = {"client_id": "int64", "paid_at": "timestamp", "amount": "decimal(18,2)"}
    connected = desk.with_databases(crm=sqlite.url)
    connected.apply(CLIENT, replace(PAYMENTS, columns=columns), AMOUNTS)
    sqlite.run("UPDATE payments SET amount = 0.1 + 0.2")
    assert "is not decimal(18,2)" in connected.failure("amounts")["message"]
    sqlite.run("UPDATE payments SET amount = 0.3")
    connected.etl()
    assert connected.rows("amounts", "of_amount") == [(Decimal("0.30"),)]


def test_a_numeric_that_is_no_number_has_no_decimal(bank: tuple[Desk, Database]) -> None:
    desk, database = bank
    database.run("ALTER TABLE payments ALTER COLUMN amount TYPE numeric(9, 3)")
    desk.apply(CLIENT, replace(PAYMENTS, columns={}), AMOUNTS)
    desk.etl()
    assert desk.rows("amounts", "of_amount")[0] == (Decimal("1.500"),)
    database.run("UPDATE payments SET amount = 'NaN' WHERE client_id = 1")
    error = desk.failure("amounts")
    assert error["code"] == "source_value_invalid"
    assert "column 'amount'" in error["message"]


@pytest.mark.parametrize("when", ["infinity", "-infinity"])
def test_an_infinite_time_is_no_instant(bank: tuple[Desk, Database], when: str) -> None:
    desk, database = bank
    desk.apply(CLIENT, replace(PAYMENTS, columns={}), AMOUNTS)
    database.run(f"UPDATE payments SET paid_at = '{when}' WHERE client_id = 1")
    error = desk.failure("amounts")
    assert error["code"] == "source_value_invalid"
    assert "column 'paid_at': a time is infinite" in error["message"]


@pytest.mark.parametrize(
    ("key", "said"), [("nextval('numbers')", "read-only"), ("1 / (n - 9000)", "division by zero")]
)
def test_a_postgresql_query_that_fails_while_its_rows_arrive(
    bank: tuple[Desk, Database], key: str, said: str
) -> None:
    """Nothing that is read may write, not even a function of a query."""
    desk, database = bank
    database.run("CREATE SEQUENCE numbers")
    query = (
        f"SELECT {key} AS client_id, now() AS paid_at, 1.0::float8 AS amount "
        "FROM generate_series(1, 10000) AS n"
    )
    source = Source(name="payments", database="crm", query=query, event_time="paid_at")
    desk.apply(CLIENT, source, SPEND)
    error = desk.failure("spend")
    assert error["code"] == "database_refused"
    assert said in error["message"]


@pytest.mark.parametrize("made", ["12.5::money", "interval '1 day'"])
def test_postgresql_columns_that_have_no_plain_value(
    bank: tuple[Desk, Database], made: str
) -> None:
    desk, _ = bank
    source = Source(name="odd", database="crm", query=f"SELECT 1 AS one, {made} AS odd")
    error = desk.refusal(source)
    assert error.code == "wrong_type"
    assert "'odd', column 'odd'" in error.message
    desk.apply(replace(source, columns={"one": "int64"}))


@pytest.mark.parametrize(
    ("column", "declared"), [("note", "int64"), ("amount", "int64"), ("online", "string")]
)
def test_postgresql_types_must_be_the_declared(
    bank: tuple[Desk, Database], column: str, declared: Any
) -> None:
    desk, _ = bank
    source = replace(PAYMENTS, columns=PAYMENTS.columns | {column: declared})
    error = desk.refusal(CLIENT, source)
    assert error.code == "wrong_type"
    assert f"'payments', column '{column}' is declared {declared}" in error.message


def test_postgresql_type_that_changed_after_it_was_applied(bank: tuple[Desk, Database]) -> None:
    desk, database = bank
    undeclared = replace(PAYMENTS, columns={})
    desk.apply(CLIENT, undeclared, LAST, SPEND)
    desk.etl()
    database.run("ALTER TABLE payments ALTER COLUMN amount TYPE text")
    error = desk.failure("spend")
    assert error["code"] == "source_changed"
    assert "column 'amount' was float64 and is string" in error["message"]
    database.run("ALTER TABLE payments ALTER COLUMN amount TYPE float USING amount::float")
    desk.etl()
    assert len(read(desk)) == 3


STAGED = "state/reading/*/payments.parquet"


def slow(rows: int) -> Source:
    """Payments that take a second for each thousand, and come in batches on the way."""
    pad = "repeat('x', 20000)"
    return replace(
        PAYMENTS,
        table=None,
        query="SELECT n AS client_id, TIMESTAMP '2026-01-01' AS paid_at, 1.0::float8 AS amount, "
        f"{pad} || pg_sleep(0.001)::text AS note, true AS online FROM generate_series(1, {rows}) n",
    )


def test_a_connection_that_drops_in_the_middle_fails_the_run_and_nothing_else(
    bank: tuple[Desk, Database],
) -> None:
    desk, database = bank
    source = slow(3000)  # 60 MB: several batches arrive before the end
    desk.apply(CLIENT, source, SPEND)
    desk.etl()
    first = desk.readable("spend")
    assert first is not None
    assert len(first[1]) == 3000
    dropped: list[int] = []

    def drop() -> None:
        ours = "application_name = 'konveyer' AND query LIKE 'COPY%'"
        with psycopg.connect(database.url, autocommit=True) as other:
            while not any(file.stat().st_size > 1000 for file in desk.root.glob(STAGED)):
                time.sleep(0.005)
            stop = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}"
            dropped.extend(other.execute(stop).fetchall())  # type: ignore[arg-type]

    thread = threading.Thread(target=drop)
    thread.start()
    error = desk.failure("spend")
    thread.join()
    assert dropped
    assert error["code"] == "database_unreadable"
    assert "Source 'payments', database 'crm'" in error["message"]
    assert desk.readable("spend") == first
    desk.etl()
    again = desk.readable("spend")
    assert again is not None
    assert again[0] == first[0] + 1
    assert again[1] == first[1]


def test_a_server_that_is_away(bank: tuple[Desk, Database]) -> None:
    desk, _ = bank
    desk.apply(*DEFINITIONS)
    desk.etl()
    secret = "s3cr/t@word"
    away = f"postgresql://etl:{quote(secret, safe='')}@127.0.0.1:1/crm"
    error = desk.with_databases(crm=away).failure("last")
    assert error["code"] == "database_unreadable"
    assert "127.0.0.1" in error["message"]
    for hidden in (secret, quote(secret, safe="")):
        assert hidden not in str(error)
    desk.etl()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://etl:s3cr t@127.0.0.1:1/crm",
        "postgresql://etl:s3cr@t@127.0.0.1:1/crm",
        "postgresql://etl:s3cr/t@127.0.0.1:1/crm",
        "postgresql://etl:s3cr%zz@127.0.0.1:1/crm",
        "postgresql://127.0.0.1:1/crm?user=etl&password=s3cr",
        "postgresql://etl:s3cr@[127.0.0.1:1/crm",
    ],
)
def test_a_password_in_a_bad_url_is_not_shown(desk: Desk, url: str) -> None:
    error = desk.with_databases(crm=url).refusal(CLIENT, PAYMENTS)
    assert error.code == "database_unreadable"
    assert "s3cr" not in str(error)
    assert "s3cr" not in repr(error.__cause__)


def test_sqlite_needs_a_declaration_and_offers_it(desk: Desk, sqlite: Database) -> None:
    sqlite.run(f"CREATE TABLE payments {TYPES}")
    sqlite.run(INSERT, *ROWS)
    error = desk.with_databases(crm=sqlite.url).refusal(CLIENT, replace(PAYMENTS, columns={}))
    assert error.code == "source_types_missing"
    assert error.hint
    assert '"paid_at": "timestamp", "amount": "float64", "note": "string"' in error.hint


@pytest.mark.parametrize("before", [0, 70_000], ids=["at-once", "late"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("client_id", "x"),
        ("client_id", 1.5),
        ("amount", "1.5x"),
        ("paid_at", "soon"),
        ("online", "no"),
        ("online", 2),
    ],
)
def test_a_sqlite_value_of_another_type(
    desk: Desk, sqlite: Database, column: str, value: Any, before: int
) -> None:
    """SQLite takes any value into any column, whatever the table was declared with.

    Of the first rows also `apply` says so.
    """
    desk = desk.with_databases(crm=sqlite.url)
    sqlite.run("CREATE TABLE payments (client_id, paid_at, amount, note, online)")
    sqlite.run(INSERT, *ROWS)
    desk.apply(*DEFINITIONS)
    desk.etl()
    bad = dict(zip(PAYMENTS.columns, ROWS[0], strict=True)) | {column: value}
    sqlite.run(INSERT, *[ROWS[0]] * before, tuple(bad.values()))
    error = desk.failure("last")
    assert error["code"] == "source_value_invalid"
    assert f"Source 'payments', column '{column}'" in error["message"]
    if before:
        desk.check(*DEFINITIONS)
    else:
        refusal = desk.refusal(*DEFINITIONS)
        assert refusal.code == error["code"]
        assert refusal.message in error["message"]


def test_a_sqlite_file_that_is_not_there(desk: Desk) -> None:
    error = desk.with_databases(crm="sqlite:///gone.db").refusal(CLIENT, PAYMENTS)
    assert error.code == "database_unreadable"
    assert "gone.db" in error.message
    assert not (desk.root / "gone.db").exists()


def test_a_missing_driver_names_what_to_install(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_sqlite", None)
    error = desk.with_databases(crm="sqlite:///crm.db").refusal(CLIENT, PAYMENTS)
    assert error.code == "database_driver_missing"
    assert error.hint == "install the extra: konveyer[databases]"


def test_databases_stand_in_the_settings(tmp_path: Path) -> None:
    text = b'[workspace]\nname = "shop"\n[databases.crm]\nurl = "sqlite:///crm.db"\n'
    assert parse_settings(text, root=tmp_path).databases["crm"].url == "sqlite:///crm.db"
