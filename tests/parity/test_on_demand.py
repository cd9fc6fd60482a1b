"""On-demand features are the same in a training set and at a prediction, whatever is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from konveyer.core.clock import format_us, parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ListType, ScalarColumn
from konveyer.feature_store.datamart.labels import LabelsMissColumn
from konveyer.feature_store.datamart.search import search_features
from konveyer.feature_store.datamart.show import show_view
from konveyer.feature_store.definitions.definition import Definition, from_spec, kind_of, to_spec
from konveyer.feature_store.kernel.errors import OnDemandFailed
from konveyer.feature_store.kernel.on_demand import OnDemandComputation, as_array
from tests.unit.etl.store import Store, opened_store

NOW = "2026-01-11T00:00:00Z"


def payment(amount: Any, city: Any, at: Any, spend: Any, last_city: Any) -> dict[str, Any]:
    import numpy as np

    return {
        "share": amount / spend,
        "rounded": np.floor(amount),
        "same_city": np.array(
            [a is not None and a == b for a, b in zip(city, last_city, strict=True)]
        ),
        "shout": np.array([None if c is None else c.upper() for c in city], dtype=object),
        "a_day_later": at + 86_400_000_000.0,
    }


PAYMENT = OnDemandView(
    name="payment",
    function=payment,
    request=(
        RequestField("amount", "float64"),
        RequestField("city", "string"),
        RequestField("at", "timestamp"),
    ),
    inputs=("use:spend", "use:last_city"),
    features=(
        Feature(name="share", dtype="float64", description="Of all that was spent before."),
        Feature(name="rounded", dtype="int64"),
        Feature(name="same_city", dtype="bool"),
        Feature(name="shout", dtype="string"),
        Feature(name="a_day_later", dtype="timestamp"),
    ),
    owner="payments-team",
)
DEFINITIONS: tuple[Definition, ...] = (
    Entity(name="card", join_keys=(JoinKey("card", "int64"),)),
    Source(name="events", path="events.parquet", event_time="paid_at"),
    FeatureView(
        name="use",
        entity="card",
        source="events",
        aggregations=(
            Aggregation(column="amount", function="sum", over="unbounded", name="spend"),
            Aggregation(column="city", function="last", over="unbounded", name="last_city"),
            Aggregation(function="count", over="unbounded", name="paid"),
        ),
    ),
    PAYMENT,
    FeatureService(name="scoring", features=("use:paid", "payment", "payment:share as again")),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    root: Path = tmp_path_factory.mktemp("on-demand")
    at = pa.array([parse_instant("2026-01-01T00:00:00Z")] * 3, pa.timestamp("us", "UTC"))
    columns = {"card": [1, 1, 2], "paid_at": at, "amount": [10, 30, 0], "city": ["Oslo", "ы", None]}
    pq.write_table(pa.table(columns), root / "events.parquet")
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    catalog.migrate()
    admin = Actor("admin", frozenset({Role.ADMINISTRATOR}))
    with opened_store(catalog, admin, root, now=NOW) as store:
        store.apply(*DEFINITIONS)
        store.etl()
        yield store
    catalog.close()


asked = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.none() | st.floats(-1e9, 1e9),
        st.sampled_from([None, "", "Oslo", "ы", "ß"]),
        st.none() | st.integers(-(10**15), 10**15),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(asked)
def test_training_equals_prediction(store: Store, rows: list[tuple[Any, ...]]) -> None:
    cards, amounts, cities, times = (list(column) for column in zip(*rows, strict=True))
    now = pa.array([parse_instant(NOW)] * len(rows), pa.timestamp("us", "UTC"))
    frame = pa.table(
        {
            "card": cards,
            "when": now,
            "row": list(range(len(rows))),
            "amount": pa.array(amounts, pa.float64()),
            "city": pa.array(cities, pa.string()),
            "at": pa.array(times, pa.timestamp("us", "UTC")),
        }
    )
    built = store.training_set(frame, timestamp="when").table
    names = ["paid", "share", "rounded", "same_city", "shout", "a_day_later", "again"]
    offline = built.select(names)
    later = offline.column("a_day_later").cast(pa.int64())
    offline = offline.set_column(5, "a_day_later", later)
    online = store.online(*((card,) for card in cards), requests=[row[1:] for row in rows])
    assert online == [tuple(row.values()) for row in offline.to_pylist()]


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (["a", float("nan")], ColumnType.STRING, ["a", None]),
        ([float("nan"), None], ColumnType.STRING, [None, None]),
        (np.ma.masked_array([7, 8], [True, False]), ColumnType.INT64, [None, 8]),
    ],
)
def test_nulls_of_any_kind_are_null(given: Any, dtype: ColumnType, expected: list[Any]) -> None:
    compute = OnDemandComputation("v", lambda x: {"y": given}, [ScalarColumn("y", dtype)])
    assert compute({"x": as_array([1, 2], ColumnType.INT64)}) == {"y": expected}


def test_half_a_surrogate_pair_is_refused_in_training_and_at_a_prediction_alike() -> None:
    outputs = [ScalarColumn("y", ColumnType.STRING)]
    compute = OnDemandComputation("v", lambda x: {"y": ["a", "\ud800"]}, outputs)
    with pytest.raises(OnDemandFailed, match=r"'v', feature 'y' is '\\ud800', not string"):
        compute({"x": as_array([1, 2], ColumnType.INT64)})


def test_what_a_function_does_to_a_list_is_nothing_to_the_next_one() -> None:
    cells = [[3, 1], None]
    as_array(cells, ListType(ColumnType.INT64))[0].sort()
    assert cells == [[3, 1], None]


def test_what_it_computes(store: Store) -> None:
    later = parse_instant("2026-01-02T00:00:00Z")
    (row, nothing) = store.online((1,), (9,), requests=[(20.5, "ы", later - 86_400_000_000)] * 2)
    assert row == (2, 20.5 / 40, 20, True, "Ы", later, 20.5 / 40)
    assert format_us(row[5]) == "2026-01-02T00:00:00Z"
    assert nothing is None


def test_a_frame_without_the_request_fields_is_refused(store: Store) -> None:
    now = pa.array([parse_instant(NOW)], pa.timestamp("us", "UTC"))
    with pytest.raises(LabelsMissColumn, match="'amount'"):
        store.training_set(pa.table({"card": [1], "when": now}), timestamp="when")


def test_it_is_found_and_shown_with_its_code(store: Store) -> None:
    with store.services.catalog.reading() as session:
        (found,) = search_features(session, "share spent")
        shown = show_view(session, "payment")
    assert (found.view, found.feature, found.owner) == ("payment", "share", "payments-team")
    assert shown.on_demand
    assert "return {" in (shown.code or "")
    assert ("amount", "request") in [(source.name, source.kind) for source in shown.sources]


def test_it_survives_the_catalog() -> None:
    assert from_spec(kind_of(PAYMENT), to_spec(PAYMENT)) == PAYMENT


def returns(what: str) -> str:
    return f"def f(x):\n    {what}\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (returns("return {'y': x[:1]}"), "shape (1,) for 2 row(s)"),
        (returns("return {'z': x}"), "'y' is not in what the function returns"),
        (returns("return x.nonsense"), "AttributeError"),
        (returns("raise SystemExit('no')"), "SystemExit: no"),
        (
            returns("from polars.exceptions import PanicException as P; raise P(1)"),
            "PanicException",
        ),
        (returns("return {'y': ['a', 'b']}"), "'y' is 'a', not int64"),
        (returns("return {'y': x.astype('datetime64[ns]')}"), "'y' is datetime64[ns]"),
        (returns("return {'y': x * 0 + 1 if False else [0.5, 1]}"), "'y' is 0.5, not int64"),
        (returns("return {'y': [1e19, 1]}"), "'y' is 1e+19, not int64"),
        (returns("x[:] = 1; return {'y': x}"), "read-only"),
    ],
)
def test_a_function_that_gives_something_else_is_refused_at_apply(
    store: Store, code: str, says: str
) -> None:
    view = OnDemandView(
        name="bad",
        function=code,
        request=(RequestField("x", "float64"),),
        features=(Feature(name="y", dtype="int64"),),
    )
    with pytest.raises(OnDemandFailed, match="'bad'") as caught:
        store.apply(*DEFINITIONS, view)
    assert says in str(caught.value)


def test_an_input_of_another_on_demand_view_is_refused(store: Store) -> None:
    other = view("def f(x, share): return {'y': x}", inputs=("payment:share",))
    with pytest.raises(KonveyerError, match="'payment', which is an on-demand view") as caught:
        store.apply(*DEFINITIONS, other)
    assert caught.value.code == "unknown_reference"
    assert "in its own function" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: view(lambda x: x), "one plain `def`"),
        (lambda: view("def f(x): return ("), "does not parse"),
        (lambda: view("def f(z): return {}"), "takes z, but is given x"),
        (lambda: view(len), "source of its function cannot be read"),
        (lambda: view("def f(x, use): return {}", inputs=("use",)), "view:feature"),
    ],
)
def test_a_view_that_contradicts_itself(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(KonveyerError) as caught:
        make()
    assert says in str(caught.value)
    assert caught.value.code == "bad_definition"


def view(function: Any, inputs: tuple[str, ...] = ()) -> OnDemandView:
    return OnDemandView(
        name="v",
        function=function,
        request=(RequestField("x", "float64"),),
        inputs=inputs,
        features=(Feature(name="y", dtype="float64"),),
    )
