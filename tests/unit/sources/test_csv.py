"""CSV: types are what the source declares, whatever the values look like."""

import ast
import gzip
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from konveyer import Aggregation, Entity, Feature, FeatureView, JoinKey, Source
from konveyer.feature_store.definitions.errors import BadDefinition
from tests.desk import Desk

CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
VISITS = Source(
    name="visits",
    path="visits.csv",
    columns={
        "client_id": "int64",
        "at": "timestamp",
        "spent": "float64",
        "member": "bool",
        "zip": "string",
    },
    event_time="at",
)
LAST = FeatureView(
    name="last",
    entity="client",
    sql='SELECT client_id, "at" AS event_time, spent, member, zip FROM visits',
    features=(
        Feature(name="spent", dtype="float64"),
        Feature(name="member", dtype="bool"),
        Feature(name="zip", dtype="string"),
    ),
)
HEADER = "client_id,at,spent,member,zip\n"
ROW = "1,2026-01-01,1.5,true,0042\n"


def write(desk: Desk, text: str, name: str = "visits.csv") -> Path:
    file = desk.root / name
    file.parent.mkdir(exist_ok=True)
    content = text.encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return file


def rows(desk: Desk, source: Source = VISITS) -> list[tuple[Any, ...]]:
    desk.apply(CLIENT, source, LAST)
    desk.etl()
    found = desk.rows("last", "client_id", "event_time", "spent", "member", "zip")
    return [(key, at.isoformat(), *rest) for key, at, *rest in found]


def test_values_have_the_declared_types(desk: Desk) -> None:
    write(
        desk,
        HEADER
        + "1,2026-01-01,1.5,true,0042\n"
        + '2,2026-01-02 10:00:00.5,2,false,"a, ""b""\nc"\n'
        + '3,2026-01-02T00:00:00+02:00,,,""\n'
        + "4,2026-01-03T00:00:00Z,-1e3,,\n",
    )
    assert rows(desk) == [
        (1, "2026-01-01T00:00:00+00:00", 1.5, True, "0042"),
        (2, "2026-01-02T10:00:00.500000+00:00", 2.0, False, 'a, "b"\nc'),
        (3, "2026-01-01T22:00:00+00:00", None, None, ""),
        (4, "2026-01-03T00:00:00+00:00", -1000.0, None, None),
    ]


def test_packed_files_of_a_glob_are_read_by_their_headers(desk: Desk) -> None:
    write(desk, HEADER + ROW, "days/1.csv.gz")
    write(
        desk,
        "zip;spent;more;client_id;member;at\nB;2;?;2;false;2026-01-02\n".replace(";", ","),
        "days/2.csv.gz",
    )
    assert rows(desk, replace(VISITS, path="days/*.csv.gz")) == [
        (1, "2026-01-01T00:00:00+00:00", 1.5, True, "0042"),
        (2, "2026-01-02T00:00:00+00:00", 2.0, False, "B"),
    ]


def test_another_delimiter(desk: Desk) -> None:
    write(desk, (HEADER + ROW).replace(",", ";"))
    assert rows(desk, replace(VISITS, delimiter=";"))[0][4] == "0042"


def test_undeclared_types_are_an_error_with_the_declaration(desk: Desk) -> None:
    write(desk, HEADER + ROW + "2,2026-01-01,,,\n" + "3,2026-01-01 10:00,2,false,1204\n")
    error = desk.refusal(CLIENT, replace(VISITS, columns={}), LAST)
    assert error.code == "source_types_missing"
    assert "'visits'" in error.message
    assert error.hint
    declared = ast.literal_eval(error.hint.partition("columns=")[2])
    assert declared == VISITS.columns


@pytest.mark.parametrize(
    ("bad", "column", "value"),
    [
        ("1.5,2026-01-01,1,true,x", "client_id", "1.5"),
        ("x,2026-01-01,1,true,x", "client_id", "x"),
        ("0x1F,2026-01-01,1,true,x", "client_id", "0x1F"),
        ("1,2026-01-01,1e400,true,x", "spent", "1e400"),
        ("1,yesterday,1,true,x", "at", "yesterday"),
        ("1,2026-02-30,1,true,x", "at", "2026-02-30"),
        ('1,2026-01-01,"1,5",true,x', "spent", "1,5"),
        ("1,2026-01-01,1,maybe,x", "member", "maybe"),
    ],
)
@pytest.mark.parametrize("when", ["apply", "etl"])
def test_a_value_of_another_type(desk: Desk, bad: str, column: str, value: str, when: str) -> None:
    """Near the top it is found when definitions are applied, elsewhere when the file is read."""
    before = 2 if when == "apply" else 400_000
    file = write(desk, HEADER + ROW)
    if when == "etl":
        assert rows(desk)
    write(desk, HEADER + ROW * before + bad + "\n" + ROW)
    if when == "apply":
        refused = desk.refusal(CLIENT, VISITS, LAST)
        code, message = refused.code, refused.message
    else:
        error = desk.failure("last")
        code, message = error["code"], error["message"]
    assert code == "source_value_invalid"
    assert (
        f"Source 'visits', file {file}, column '{column}', row {before + 1}: '{value}'" in message
    )
    write(desk, HEADER + ROW)
    assert len(rows(desk)) == 1


def test_a_header_without_a_declared_column_names_its_file(desk: Desk) -> None:
    write(desk, HEADER + ROW, "days/1.csv")
    second = write(desk, "client_id,at,spend,member,zip\n" + ROW, "days/2.csv")
    error = desk.refusal(CLIENT, replace(VISITS, path="days/*.csv"))
    assert error.code == "unknown_column"
    assert f"'visits', file {second}: column 'spent'" in error.message
    assert error.hint == "did you mean 'spend'?"


def test_a_column_that_the_header_has_twice(desk: Desk) -> None:
    write(desk, "client_id,at,spent,spent,member,zip\n1,2026-01-01,1,2,true,x\n")
    error = desk.refusal(CLIENT, VISITS)
    assert error.code == "unknown_column"
    assert "'spent' is more than once" in error.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (HEADER + ROW + "1,2026-01-01,1\n").encode(),
        (HEADER + "1,2026-01-01,1,true,Zürich\n").encode("latin-1"),
    ],
)
def test_a_damaged_file_is_named(desk: Desk, content: bytes) -> None:
    file = desk.root / "visits.csv"
    file.write_bytes(content)
    error = desk.refusal(CLIENT, VISITS)
    assert error.code == "source_unreadable"
    assert f"'visits', file {file}" in error.message


def test_a_packed_file_that_ends_too_early_leaves_everything_as_it_was(desk: Desk) -> None:
    source = replace(VISITS, path="visits.csv.gz")
    file = write(desk, HEADER + ROW, "visits.csv.gz")
    assert len(rows(desk, source)) == 1
    whole = gzip.compress((HEADER + ROW * 1_000_000).encode())
    file.write_bytes(whole[:-2000])
    error = desk.failure("last")
    assert error["code"] == "source_unreadable"
    assert str(file) in error["message"]


def test_aggregations_over_csv(desk: Desk) -> None:
    write(desk, HEADER + ROW * 3)
    view = FeatureView(
        name="spend",
        entity="client",
        source="visits",
        aggregations=(Aggregation(column="spent", function="sum", over="7d"),),
    )
    desk.apply(CLIENT, VISITS, view)
    desk.etl()
    assert desk.rows("spend", "of_spent") == [(1.5,)] * 3
    assert desk.show("spend").sources[0].kind == "csv"


def test_decimals_are_what_is_written(desk: Desk) -> None:
    text = "client_id,at,spent\n1,2026-01-01,12.5\n1,2026-01-02,\n2,2026-01-01,-0.10\n"
    source = Source(
        name="visits",
        path="visits.csv",
        columns={"client_id": "int64", "at": "timestamp", "spent": "decimal(18, 2)"},
        event_time="at",
    )
    view = FeatureView(
        name="spend",
        entity="client",
        source="visits",
        aggregations=(Aggregation(column="spent", function="sum", over="7d"),),
    )
    write(desk, text)
    desk.apply(CLIENT, source, view)
    desk.etl()
    found = desk.rows("spend", "client_id", "of_spent")
    assert found == [(1, Decimal("12.50")), (1, None), (2, Decimal("-0.10"))]
    assert desk.show("spend").features[0].dtype == "decimal(38,2)"
    assert desk.show("spend").sources[0].columns["spent"] == "decimal(18,2)"

    write(desk, text.replace("12.5", "12.505"))
    error = desk.failure("spend")
    assert error["code"] == "source_value_invalid"
    assert "column 'spent', row 1: '12.505' is not decimal(18,2)" in error["message"]


def test_a_list_has_no_form_in_csv() -> None:
    with pytest.raises(BadDefinition, match=r"column 'spent' has type 'list<int64>'"):
        replace(VISITS, columns={**VISITS.columns, "spent": "list<int64>"})
