"""What definitions can say, from the definition to a training set and an online read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Derived,
    Entity,
    FeatureService,
    FeatureView,
    JoinKey,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.labels import LabelsMissColumn, LabelsWrongType
from konveyer.feature_store.datamart.search import search_features
from konveyer.feature_store.definitions.definition import Definition
from tests.unit.etl.store import Store, opened_store

UPPER, LOWER = (f"{number:08X}-0000-0000-0000-00000000ABCD" for number in (1, 2))
CARD = Entity(name="card", join_keys=(JoinKey("card_id", "uuid"),))
PAYMENTS = Source(name="payments", path="payments.parquet", event_time="paid_at")
USE = FeatureView(
    name="use",
    entity="card",
    source="payments",
    aggregations=(
        Aggregation(
            function="count",
            over="7d",
            name="paid",
            by="shop",
            values=("Café 1", "bar's"),
            description="Payments of the week",
            sensitivity="confidential",
            tags=("shops",),
        ),
        Aggregation(column="amount", function="sum", over="2d", name="spend_2d"),
        Aggregation(column="amount", function="sum", over="unbounded"),
        Aggregation(column="amount", function="stddev", over="7d"),
        Aggregation(column="shop", function="first", over="7d"),
        Aggregation(column="shop", function="last", over="unbounded", owner="shops-team"),
        Aggregation(column="shop", function="count_distinct", over="7d"),
    ),
    derived=(
        Derived(
            name="recent_share", operation="ratio", left="spend_2d", right="amount_sum_unbounded"
        ),
        Derived(
            name="before", operation="difference", left="amount_sum_unbounded", right="spend_2d"
        ),
    ),
    accuracy="exact",
    owner="cards-team",
)
SCORING = FeatureService(name="scoring", features=("use", "use:paid_bar_s as bars"))
NAMES = (
    "paid_caf_1",
    "paid_bar_s",
    "spend_2d",
    "amount_sum_unbounded",
    "amount_stddev_7d",
    "shop_first_7d",
    "shop_last_unbounded",
    "shop_count_distinct_7d",
    "recent_share",
    "before",
    "bars",
)
EXPECTED = (1, 2, 40, 70, pytest.approx(10.40833), "Café 1", "bar's", 2, 4 / 7, 30, 2)
NOTHING = (0, 0, None, None, None, None, None, 0, None, None, 0)
DEFINITIONS: tuple[Definition, ...] = (CARD, PAYMENTS, USE, SCORING)


@pytest.fixture
def store(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Store]:
    rows = [
        (UPPER, "2026-01-01T00:00:00", 5, "old"),
        (UPPER, "2026-01-08T00:00:01", 25, "Café 1"),
        (UPPER, "2026-01-10T00:00:00", 10, "bar's"),
        (UPPER, "2026-01-10T01:00:00", 30, "bar's"),
        (LOWER.lower(), "2026-01-10T01:00:00", 30, "bar's"),
    ]
    cards, times, amounts, shops = zip(*rows, strict=True)
    paid_at = pa.array(times).cast(pa.timestamp("us"))
    table = pa.table({"card_id": cards, "paid_at": paid_at, "amount": amounts, "shop": shops})
    pq.write_table(table, tmp_path / "payments.parquet")
    with opened_store(catalog, admin, tmp_path, now="2026-01-11T00:00:00Z") as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store


def labels(*cards: str | None, at: str = "2026-01-11T00:00:00") -> pa.Table:
    times = pa.array([at] * len(cards)).cast(pa.timestamp("us"))
    return pa.table({"card": pa.array(cards, pa.string()), "at": times})


def test_every_aggregate_in_training_and_online(store: Store) -> None:
    other = "99999999-0000-0000-0000-000000000000"
    built = store.training_set(labels(UPPER.lower(), other), columns={"card_id": "card"})
    assert built.table.column_names == ["card", "at", *NAMES]
    rows = built.table.select(NAMES).to_pylist()
    assert tuple(rows[0].values()) == EXPECTED
    assert tuple(rows[1].values()) == NOTHING
    online = store.online((str(UUID(UPPER)),), (other,))
    assert online[0] == EXPECTED
    assert online[1] is None


def test_whom_one_view_does_not_know_is_the_same_in_training_and_online(store: Store) -> None:
    old = Source(name="old", sql="SELECT * FROM payments WHERE shop = 'old'", event_time="paid_at")
    counts = FeatureView(
        name="counts",
        entity="card",
        source="old",
        aggregations=(
            Aggregation(function="count", over="unbounded", name="ever"),
            Aggregation(column="shop", function="count_distinct", over="7d", name="recent"),
            Aggregation(column="amount", function="sum", over="7d", name="spent"),
        ),
        derived=(
            Derived(name="earlier", operation="difference", left="ever", right="recent"),
            Derived(name="mixed", operation="difference", left="ever", right="spent"),
            Derived(name="share", operation="ratio", left="recent", right="ever"),
        ),
    )
    service = FeatureService(name="scoring", features=("counts", "use:paid_bar_s"))
    store.apply(CARD, PAYMENTS, old, USE, counts, service)
    store.etl()
    built = store.training_set(labels(LOWER), columns={"card_id": "card"})
    (row,) = built.table.drop_columns(["card", "at"]).to_pylist()
    assert tuple(row.values()) == (0, 0, None, 0, None, None, 1)
    assert store.online((LOWER.lower(),)) == [tuple(row.values())]


def test_a_key_column_may_have_another_name_and_another_case(store: Store) -> None:
    upper = store.training_set(labels(UPPER), columns={"card_id": "card"}).table
    assert upper["amount_sum_unbounded"].to_pylist() == [70]
    assert upper["card"].to_pylist() == [UPPER.lower()]
    with pytest.raises(LabelsMissColumn, match="'card_id'"):
        store.training_set(labels(UPPER))
    with pytest.raises(LabelsMissColumn, match="'card_ids' is no join key"):
        store.training_set(labels(UPPER), columns={"card_ids": "card"})
    with pytest.raises(LabelsWrongType, match="'nonsense', which is no UUID"):
        store.training_set(labels("nonsense"), columns={"card_id": "card"})


def test_the_datamart_knows_what_each_feature_says_of_itself(store: Store) -> None:
    with store.services.catalog.reading() as session:
        found = {feature.feature: feature for feature in search_features(session)}
        (by_tag, _) = search_features(session, "shops week")
    bars = found["paid_bar_s"]
    assert bars.description == "Payments of the week (shop bar's)"
    assert bars.formula == "count(*) over 7d where CAST(\"shop\" AS VARCHAR) = 'bar''s'"
    assert (bars.sensitivity, bars.tags, bars.owner) == ("confidential", ("shops",), "cards-team")
    assert found["shop_last_unbounded"].owner == "shops-team"
    assert found["recent_share"].formula == "spend_2d / amount_sum_unbounded"
    assert by_tag.feature in {"paid_caf_1", "paid_bar_s"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Aggregation(function="count", over="7d", by="shop"), "both `by` and `values`"),
        (
            lambda: Aggregation(function="count", over="7d", by="shop", values=(1,)),  # type: ignore[arg-type]
            "has values=(1,)",
        ),
        (lambda: Aggregation(function="count", over="7d", maximum=float("nan")), "is no number"),
        (lambda: Aggregation(function="median", over="7d", column="x"), "'median' is not known"),  # type: ignore[arg-type]
        (lambda: Aggregation(function="sum", over="-7d", column="x"), "not a positive duration"),
        (
            lambda: Aggregation(function="count", over="7d", sensitivity="secret"),  # type: ignore[arg-type]
            "sensitivity 'secret'",
        ),
        (
            lambda: Aggregation(function="count", over="7d", minimum=2, maximum=1),
            "minimum 2.0 above maximum 1.0",
        ),
        (
            lambda: Derived(name="x", operation="product", left="a", right="b"),  # type: ignore[arg-type]
            "operation 'product'",
        ),
        (lambda: FeatureService(name="s", features=("use:a as ",)), "is no feature"),
        (lambda: FeatureService(name="s", features=("use:a as B",)), "name 'B' cannot be used"),
        (lambda: JoinKey("k", "float64"), "use one of int64, string, uuid"),  # type: ignore[arg-type]
        (
            lambda: FeatureView(
                name="v",
                entity="e",
                source="s",
                aggregations=(Aggregation(function="count", over="7d", name="a"),),
                derived=(Derived(name="x", operation="ratio", left="a", right="aa"),),
            ),
            "did you mean 'a'",
        ),
        (
            lambda: FeatureView(
                name="v",
                entity="e",
                source="s",
                aggregations=(
                    Aggregation(function="count", over="7d", by="c", values=("a b", "a-b")),
                ),
            ),
            "both be named",
        ),
    ],
)
def test_a_definition_that_contradicts_itself(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(KonveyerError) as caught:
        make()
    assert says in str(caught.value)
    assert caught.value.code == "bad_definition"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("aggregation", "says"),
    [
        (Aggregation(column="shop", function="stddev", over="7d"), "'shop' as float64 or int64"),
        (Aggregation(column="shop", function="max", over="7d"), "but it is string"),
        (Aggregation(function="count", over="7d", by="shpo", values=("a",)), "shpo"),
    ],
)
def test_an_aggregation_that_does_not_fit_its_column(
    store: Store, aggregation: Aggregation, says: str
) -> None:
    view = FeatureView(name="bad", entity="card", source="payments", aggregations=(aggregation,))
    with pytest.raises(KonveyerError, match="'bad'") as caught:
        store.apply(*DEFINITIONS, view)
    assert says in str(caught.value)


def test_a_difference_of_texts_is_refused(store: Store) -> None:
    view = FeatureView(
        name="bad",
        entity="card",
        source="payments",
        aggregations=(Aggregation(column="shop", function="last", over="7d", name="shop"),),
        derived=(Derived(name="x", operation="difference", left="shop", right="shop"),),
    )
    with pytest.raises(KonveyerError, match="needs 'shop' as a number"):
        store.apply(*DEFINITIONS, view)


def test_a_sum_that_is_too_large_fails_the_run_by_name_and_publishes_nothing(
    store: Store, tmp_path: Path
) -> None:
    table = pq.read_table(tmp_path / "payments.parquet")
    amounts = pa.array([2**62] * len(table), pa.int64())
    pq.write_table(table.set_column(2, "amount", amounts), tmp_path / "payments.parquet")
    with pytest.raises(KonveyerError, match="Feature 'spend_2d': A sum does not fit into 64 bits"):
        store.etl()
    assert store.online((str(UUID(UPPER)),))[0] == EXPECTED
