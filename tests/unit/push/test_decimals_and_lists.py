"""Pushed decimals and lists: what is sent is what is kept, or an error."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from konveyer import (
    Aggregation,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    JoinKey,
    PushedColumn,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.feature_store.push.errors import PushedRowsInvalid
from tests.unit.push.till import Till, opened_till

DEFINITIONS = (
    Entity(name="client", join_keys=(JoinKey("client", "int64"), JoinKey("shop", "string"))),
    Source(
        name="carts",
        pushed=(
            PushedColumn("client", "int64"),
            PushedColumn("shop", "string"),
            PushedColumn("left_at", "timestamp"),
            PushedColumn("total", "decimal(9, 2)", minimum=-0.05, maximum=5000),
            PushedColumn("items", "list<float64>"),
        ),
        event_time="left_at",
    ),
    FeatureView(
        name="carts",
        entity="client",
        source="carts",
        aggregations=(
            Aggregation(column="total", function="sum", over="7d", name="spent", maximum=6000),
        ),
        accuracy="exact",
    ),
    FeatureView(
        name="last",
        entity="client",
        sql="SELECT client, shop, left_at AS event_time, total, items FROM carts",
        features=(
            Feature(name="total", dtype="decimal(9,2)"),
            Feature(name="items", dtype="list<float64>"),
        ),
        accuracy="exact",
        as_known=False,
    ),
    FeatureService(name="scoring", features=("carts", "last")),
)


@pytest.fixture
def till(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Till]:
    with opened_till(catalog, admin, tmp_path, *DEFINITIONS) as till:
        yield till


def cart(total: Any, items: Any, at: str = "31T12:00", client: int = 1) -> dict[str, Any]:
    return {
        "client": client,
        "shop": "a",
        "left_at": f"2026-01-{at}",
        "total": total,
        "items": items,
    }


def online(till: Till, *clients: int) -> list[Any]:
    return till.store.online(*((client, "a") for client in clients))


def test_they_are_online_at_once_and_after_etl(till: Till) -> None:
    till.push([cart("12.50", [1, 2.5, None]), cart(7, [], client=2)], key="a", source="carts")
    assert online(till, 1, 2) == [
        (Decimal("12.50"), Decimal("12.50"), [1.0, 2.5, None]),
        (Decimal("7.00"), Decimal("7.00"), []),
    ]
    table = pa.table(
        {
            "client": [1],
            "shop": ["a"],
            "left_at": pa.array([1_769_860_800_000_000], pa.timestamp("us")),  # of the same moment
            "total": pa.array([Decimal("0.125")], pa.decimal128(12, 3)),
            "items": pa.array([[1, 2]], pa.large_list(pa.int32())),
        }
    )
    with pytest.raises(PushedRowsInvalid, match="column 'total'"):
        till.push(table, key="b", source="carts")
    fits = pa.array([Decimal("0.120")], pa.decimal128(12, 3))
    till.push(table.set_column(3, "total", fits), key="b", source="carts")
    expected = [(Decimal("12.62"), Decimal("12.50"), [1.0, 2.5, None])]
    assert online(till, 1) == expected, "of one moment, the last in the order of all columns"
    till.store.etl()
    assert online(till, 1) == expected
    till.push([cart("1.00", None, "31T13:00")], key="c", source="carts")
    assert online(till, 1) == [(Decimal("13.62"), Decimal("1.00"), None)]


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        ([[2.0], [2.0, None], [2.0, 3.0], []], "[2.0, None]"),
        ([[float("nan")], [2.0, None], [None], [9.0]], "[None]"),
        ([[float("nan")], [float("inf")], [2.0, 3.0]], "[nan]"),
        ([None, [None]], "None"),
    ],
)
def test_of_one_moment_lists_decide_as_they_do_in_etl(
    till: Till, rows: list[Any], last: str
) -> None:
    till.push([cart("1.00", items) for items in rows], key="a", source="carts")
    ((_, _, before),) = online(till, 1)
    till.store.etl()
    ((_, _, after),) = online(till, 1)
    assert (str(before), str(after)) == (last, last)


@pytest.mark.parametrize(
    ("total", "problem"),
    [
        ("12.505", "does not fit into decimal"),
        ("10000000", "does not fit into decimal"),
        (12.505, "does not fit into decimal"),
        (0.1 + 0.2, "write it as text"),
        (True, "write it as text"),
        ("a lot", "write it as text"),
        ("NaN", "write it as text"),
        (float("inf"), "write it as text"),
        ("5000.01", "5000.01 is above the maximum 5000"),
        ("-0.06", "-0.06 is below the minimum -0.05"),
    ],
)
def test_a_decimal_that_does_not_fit(till: Till, total: Any, problem: str) -> None:
    with pytest.raises(PushedRowsInvalid) as caught:
        till.push([cart(total, [])], key="a", source="carts")
    assert problem in caught.value.message
    assert "row 1, column 'total'" in caught.value.message
    assert till.kept("carts") == []


@pytest.mark.parametrize("total", ["5000.00", "-0.05", 12.5, 0.1, "1e3", Decimal("0.10"), 0])
def test_a_decimal_that_fits(till: Till, total: Any) -> None:
    till.push([cart(total, None)], key="a", source="carts")
    (kept,) = till.kept("carts")
    assert kept["total"] == Decimal(str(total))


@pytest.mark.parametrize("items", [1.0, "a", [1, "a"], [[1.0]], {"a": 1}])
def test_a_list_that_does_not_fit(till: Till, items: Any) -> None:
    with pytest.raises(PushedRowsInvalid, match="row 1, column 'items'"):
        till.push([cart("1.00", items)], key="a", source="carts")


def test_limits_of_a_sum_count_the_row_in(till: Till) -> None:
    till.push([cart("5000", None)], key="a", source="carts")
    with pytest.raises(Exception, match=r"6000.01 is above the maximum 6000"):
        till.push([cart("1000.01", None, "31T13:00")], key="b", source="carts")
