"""Keys that look alike are different entities: in training, online, when pushed and forgotten."""

import csv
from collections.abc import Iterator
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
from konveyer.core.clock import parse_instant
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import Held, find_entity
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.offline import layout
from konveyer.feature_store.push.errors import EntityForgotten
from tests.unit.push.till import NOW, Till, opened_till

AT = "2026-01-31T12:00:00Z"
# They concatenate alike, are the same number, or differ in a space, a case, or how "é" is made.
KEYS = [
    *(("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("bc", "a")),
    *(("007", "7"), ("7", "007"), ("7", "7"), ("07", "07"), ("7.0", "7"), ("+7", "7")),
    *(("1:a", "1:b"), ("1", "a1:b"), ("a", "2:bc"), ("a2:", "bc")),
    *(("x", "y"), ("x ", "y"), ("x", " y"), ("X", "y"), ("é", "y"), ("e\u0301", "y")),
    *(("null", "y"), ("NULL", "y"), ("y\0", "z"), ("y", "\0z")),
]
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="account", join_keys=(JoinKey("bank", "string"), JoinKey("code", "string"))),
    Source(
        name="balances",
        path="balances.csv",
        columns={"bank": "string", "code": "string", "seen_at": "timestamp", "balance": "int64"},
        event_time="seen_at",
    ),
    Source(
        name="visits",
        pushed=(
            PushedColumn("bank", "string"),
            PushedColumn("code", "string"),
            PushedColumn("seen_at", "timestamp"),
            PushedColumn("minutes", "int64"),
        ),
        event_time="seen_at",
    ),
    FeatureView(
        name="newest",
        entity="account",
        sql="SELECT bank, code, seen_at AS event_time, balance FROM balances",
        features=(Feature(name="balance", dtype="int64"),),
        accuracy="exact",
    ),
    FeatureView(
        name="visited",
        entity="account",
        source="visits",
        aggregations=(Aggregation(column="minutes", function="sum", over="7d", name="minutes"),),
        accuracy="exact",
    ),
    FeatureService(name="scoring", features=("newest", "visited")),
)


@pytest.fixture
def till(
    catalog: Catalog, admin: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Till]:
    """Each account has its place in `KEYS` as balance, and a hundred more minutes."""
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 8)
    with (tmp_path / "balances.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["bank", "code", "seen_at", "balance"])
        writer.writerows([*key, AT, place] for place, key in enumerate(KEYS))
    with opened_till(catalog, admin, tmp_path, *DEFINITIONS) as till:
        till.store.etl()
        till.push([visit(key) for key in KEYS], key="a", source="visits")
        yield till


def visit(key: tuple[str, str]) -> dict[str, Any]:
    return {"bank": key[0], "code": key[1], "seen_at": AT, "minutes": 100 + KEYS.index(key)}


def expected(*gone: tuple[str, str]) -> list[tuple[int | None, int | None]]:
    return [(None, None) if key in gone else (place, 100 + place) for place, key in enumerate(KEYS)]


def online(till: Till) -> list[tuple[int | None, int | None]]:
    return [row or (None, None) for row in till.store.online(*KEYS)]


def trained(till: Till) -> list[tuple[int | None, int | None]]:
    banks, codes = zip(*KEYS, strict=True)
    at = pa.array([parse_instant(NOW)] * len(KEYS)).cast(pa.timestamp("us", tz="UTC"))
    built = till.store.training_set(pa.table({"code": codes, "at": at, "bank": banks})).table
    return list(zip(built["balance"].to_pylist(), built["minutes"].to_pylist(), strict=True))


def forgotten(till: Till, key: tuple[str, str]) -> Held:
    services, folder = till.store.services, till.store.training_sets
    named = {"bank": key[0], "code": key[1]}

    def find() -> Held:
        return find_entity(services, till.store.admin, folder, "account", named)

    return forget(services, till.store.admin, folder, find, everywhere=True)


def test_each_account_has_what_is_its_own(till: Till) -> None:
    assert online(till) == expected()
    till.store.etl()
    assert online(till) == expected()
    assert trained(till) == expected()


def test_who_is_forgotten_takes_nobody_along(till: Till) -> None:
    till.store.etl()
    gone: list[tuple[str, str]] = []
    for one in (("a", "bc"), ("007", "7"), ("e\u0301", "y"), ("", "abc")):
        held = forgotten(till, one)
        gone.append(one)
        assert [(table.ref.view, table.rows) for table in held.tables] == [
            ("newest", 1),
            ("visited", 1),
        ]
        assert online(till) == trained(till) == expected(*gone)
    left = [key for key in KEYS if key not in gone]
    till.store.etl()
    assert online(till) == trained(till) == expected(*gone)
    assert sorted((row["bank"], row["code"]) for row in till.kept("visits")) == sorted(left)
    with pytest.raises(EntityForgotten, match="row 1: this account was forgotten"):
        till.push([visit(gone[1])], key="b", source="visits")
    till.push([visit(("7", "7")) | {"minutes": 0}], key="c", source="visits")
    assert online(till) == expected(*gone)
