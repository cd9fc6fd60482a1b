"""The kernel gives what the naive oracle gives, for histories that Hypothesis makes up."""

from dataclasses import replace
from decimal import Context, Decimal, localcontext
from itertools import product
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konveyer.core.clock import from_us
from konveyer.core.schema import ColumnType
from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.errors import NumberOverflow
from konveyer.feature_store.kernel.evaluate import (
    DerivedFeature,
    ViewPlan,
    WindowedFeature,
    evaluate,
)
from konveyer.feature_store.kernel.history import history_of
from konveyer.feature_store.kernel.search import last_at_most
from konveyer.feature_store.kernel.spine import spine_of
from tests.parity.oracle import Event, aggregated, newest

INSTANT = ColumnType.TIMESTAMP.arrow
FUNCTIONS = get_args(AggregationFunction)
# Few distinct moments, so that ties and window bounds meet; some before 1970.
moments = st.integers(-6, 12).map(lambda tick: tick * 10)
# So far apart (the years 1 to 9999) that an entity and a time do not fit into one number.
far_moments = st.sampled_from([-62_135_596_800_000_000, -10, 0, 10, 253_402_300_799_999_999])
numbers = st.one_of(st.none(), st.integers(-(2**60), 2**60))
keys = st.tuples(st.integers(-2, 2), st.sampled_from(["", "a", "ab", "ы"]))
asked_keys = st.tuples(
    st.one_of(st.none(), st.integers(-3, 3)), st.sampled_from([None, "", "a", "ab", "ы", "z"])
)


@st.composite
def histories(
    draw: st.DrawFn, moments: st.SearchStrategy[int] = moments, *, ties: bool = False
) -> list[Event]:
    """Rows that differ in (key, event time, created time): the winner is then decided.

    With `ties` they need not: of rows that are alike in these the later one wins.
    """
    row = st.tuples(keys, moments, moments, numbers, st.booleans())
    rows = draw(st.lists(row, max_size=25, unique_by=None if ties else lambda r: r[:3]))
    return [Event(*row) for row in rows]


def as_table(events: list[Event], value_type: pa.DataType) -> pa.Table:
    return pa.table(
        {
            "number": pa.array([e.key[0] for e in events], pa.int64()),
            "text": pa.array([e.key[1] for e in events], pa.string()),
            "event_time": pa.array([e.event_us for e in events], INSTANT),
            "created_time": pa.array([e.created_us for e in events], INSTANT),
            "value": pa.array([e.value for e in events], value_type),
            "passes": pa.array([e.passes for e in events], pa.bool_()),
        }
    )


def without_created(table: pa.Table) -> pa.Table:
    """Without created times a tie of event times is decided by the order of the rows."""
    table = table.sort_by([("event_time", "ascending"), ("created_time", "ascending")])
    return table.drop_columns(["created_time"])


def asked_as_table(asked: list[tuple[tuple[Any, ...], int]]) -> tuple[pa.Table, Any]:
    table = pa.table(
        {
            "number": pa.array([key[0] for key, _ in asked], pa.int64()),
            "text": pa.array([key[1] for key, _ in asked], pa.string()),
        }
    )
    return table, np.array([at for _, at in asked], np.int64)


def evaluated(plan: ViewPlan, table: pa.Table, spine: pa.Table, at_us: Any) -> pa.Table:
    """What the kernel gives, in the order in which it was asked."""
    rows, order = spine_of(spine, at_us)
    found = evaluate(plan, history_of(table, plan.keys), rows)
    return found.take(pa.array(np.argsort(order)))


spines = st.lists(st.tuples(asked_keys, moments), max_size=15)
near = st.tuples(histories(), spines)
far = st.tuples(histories(far_moments), st.lists(st.tuples(asked_keys, far_moments), max_size=15))
Asked = list[tuple[tuple[Any, ...], int]]


@settings(deadline=None, max_examples=400)
@given(near | far, st.sampled_from([None, 0, 10, 30]), st.booleans(), st.booleans())
def test_the_newest_visible_row_wins(
    drawn: tuple[list[Event], Asked],
    ttl_us: int | None,
    as_known: bool,
    records_created: bool,
) -> None:
    events, asked = drawn
    table = as_table(events, pa.int64())
    if not records_created:
        table, as_known = without_created(table), False
    plan = ViewPlan(keys=("number", "text"), columns=("value",), ttl_us=ttl_us, as_known=as_known)
    spine, at_us = asked_as_table(asked)
    got = evaluated(plan, table, spine, at_us)["value"].to_pylist()
    assert got == [
        newest(
            events, key, at, oldest_us=None if ttl_us is None else at - ttl_us, as_known=as_known
        )
        for key, at in asked
    ]


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("records_created", [False, True])
@settings(deadline=None, max_examples=150)
@given(near | far, st.sampled_from([1, 10, 25, 1000, None]), st.booleans(), st.booleans())
def test_windows(
    records_created: bool,
    floats: bool,
    drawn: tuple[list[Event], Asked],
    over_us: int | None,
    filtered: bool,
    as_known: bool,
) -> None:
    events, asked = drawn
    if floats:  # multiples of 0.5 below 2^20 add up exactly in any order
        events = [
            Event(
                e.key,
                e.event_us,
                e.created_us,
                None if e.value is None else e.value % 2**20 / 2,
                e.passes,
            )
            for e in events
        ]
    else:  # sums stay within 64 bits
        events = [
            Event(
                e.key, e.event_us, e.created_us, None if e.value is None else e.value >> 5, e.passes
            )
            for e in events
        ]
    table = as_table(events, pa.float64() if floats else pa.int64())
    if not records_created:
        table, as_known = without_created(table), False
    wanted = [(f, False) for f in FUNCTIONS] + [("count", True)]
    lengths_us = dict.fromkeys([over_us, 7])
    plan = ViewPlan(
        keys=("number", "text"),
        windowed=tuple(
            WindowedFeature(
                name=f"{function}_{counts_rows}_{length_us}",
                function=function,
                over_us=length_us,
                column=None if counts_rows else "value",
                filter_column="passes" if filtered else None,
            )
            for length_us in lengths_us
            for function, counts_rows in wanted
        ),
        as_known=as_known,
    )
    spine, at_us = asked_as_table(asked)
    got = evaluated(plan, table, spine, at_us)
    for length_us, (function, counts_rows) in product(lengths_us, wanted):
        expected = [
            aggregated(
                events,
                key,
                at,
                function=function,
                over_us=length_us,
                counts_rows=counts_rows,
                filtered=filtered,
                as_known=as_known,
            )
            for key, at in asked
        ]
        values = got[f"{function}_{counts_rows}_{length_us}"].to_pylist()
        # A mean is rounded once as a sum and once as a quotient, a deviation a few times more.
        roundings = {"mean": 1e-15, "stddev": 1e-12}.get(function)
        if roundings is None:
            assert values == expected
        else:
            assert values == [
                None if value is None else pytest.approx(value, rel=roundings) for value in expected
            ]


PICKED: tuple[AggregationFunction, ...] = ("count", "first", "last", "count_distinct")
ORDERED: tuple[AggregationFunction, ...] = (*PICKED, "min", "max")
OTHER_TYPES: dict[pa.DataType, tuple[list[Any], tuple[AggregationFunction, ...]]] = {
    pa.string(): (["", "a", "ab", "ы"], PICKED),
    pa.bool_(): ([True, False], PICKED),
    INSTANT: ([from_us(us) for us in (-62_135_596_800_000_000, -1, 0, 1, 2**53 + 1)], ORDERED),
}


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(histories(ties=True), spines),
    st.sampled_from(list(OTHER_TYPES)),
    st.sampled_from([1, 10, 25, None]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_windows_over_other_types_and_ties(
    drawn: tuple[list[Event], Asked],
    value_type: pa.DataType,
    over_us: int | None,
    filtered: bool,
    as_known: bool,
    records_created: bool,
) -> None:
    values, functions = OTHER_TYPES[value_type]
    events = [
        replace(e, value=None if e.value is None else values[e.value % len(values)])
        for e in drawn[0]
    ]
    table = as_table(events, value_type)
    if not records_created:
        table, as_known = without_created(table), False
    plan = ViewPlan(
        keys=("number", "text"),
        windowed=tuple(
            WindowedFeature(
                name=function,
                function=function,
                over_us=over_us,
                column="value",
                filter_column="passes" if filtered else None,
            )
            for function in functions
        ),
        as_known=as_known,
    )
    spine, at_us = asked_as_table(drawn[1])
    got = evaluated(plan, table, spine, at_us)
    for function in functions:
        assert got[function].to_pylist() == [
            aggregated(
                events,
                key,
                at,
                function=function,
                over_us=over_us,
                counts_rows=False,
                filtered=filtered,
                as_known=as_known,
            )
            for key, at in drawn[1]
        ]


@settings(deadline=None, max_examples=200)
@given(near | far, st.sampled_from([1, 10, 25, None]), st.booleans(), st.sampled_from([0, 2, 18]))
def test_windows_over_decimals(
    drawn: tuple[list[Event], Asked], over_us: int | None, filtered: bool, scale: int
) -> None:
    """Of all 18 digits: their sums leave 64 bits."""
    exact = Context(prec=60)

    def decimal(number: int | None) -> Decimal | None:
        return None if number is None else Decimal(number % 10**18).scaleb(-scale, exact)

    events = [
        Event(e.key, e.event_us, e.created_us, decimal(e.value and -abs(e.value)), e.passes)
        if place % 2
        else Event(e.key, e.event_us, e.created_us, decimal(e.value), e.passes)
        for place, e in enumerate(drawn[0])
    ]
    plan = ViewPlan(
        keys=("number", "text"),
        windowed=tuple(
            WindowedFeature(
                name=function,
                function=function,
                over_us=over_us,
                column="value",
                filter_column="passes" if filtered else None,
            )
            for function in FUNCTIONS
        ),
        derived=(
            DerivedFeature(name="range", operation="difference", left="max", right="min"),
            DerivedFeature(name="share", operation="ratio", left="min", right="sum"),
        ),
    )
    spine, at_us = asked_as_table(drawn[1])
    got = evaluated(plan, as_table(events, pa.decimal128(18, scale)), spine, at_us)
    assert got.schema.field("sum").type == pa.decimal128(38, scale)
    for place, (key, at) in enumerate(drawn[1]):
        values = got.slice(place, 1).to_pylist()[0]
        with localcontext(exact):
            wanted = {
                function: aggregated(
                    events,
                    key,
                    at,
                    function=function,
                    over_us=over_us,
                    counts_rows=False,
                    filtered=filtered,
                    as_known=True,
                )
                for function in FUNCTIONS
            }
            for function in ("mean", "stddev"):
                found, expected = values.pop(function), wanted.pop(function)
                if expected is None:
                    assert found is None
                else:
                    # A deviation of numbers that are alike is as exact as the largest of them.
                    least = float(abs(wanted["max"])) * 1e-15 if function == "stddev" else 0.0
                    assert found == pytest.approx(float(expected), rel=1e-12, abs=least)
            if wanted["max"] is None:
                assert (values.pop("range"), values.pop("share")) == (None, None)
            else:
                assert values.pop("range") == wanted["max"] - wanted["min"]
                share = values.pop("share")
                if wanted["sum"]:
                    whole = float(wanted["min"]) / float(wanted["sum"])
                    assert share == pytest.approx(whole, rel=1e-15)
                else:
                    assert share is None
        assert values == wanted


@settings(deadline=None, max_examples=100)
@given(histories(), spines, st.sampled_from([7, 20]), st.sampled_from([None, 5, 25]))
def test_a_snapshot_is_what_an_online_read_would_have_given(
    events: list[Event],
    asked: list[tuple[tuple[Any, ...], int]],
    refresh_us: int,
    ttl_us: int | None,
) -> None:
    plan = ViewPlan(
        keys=("number", "text"), columns=("value",), ttl_us=ttl_us, refresh_us=refresh_us
    )
    spine, at_us = asked_as_table(asked)
    got = evaluated(plan, as_table(events, pa.int64()), spine, at_us)
    assert got["value"].to_pylist() == [
        newest(
            events,
            key,
            at // refresh_us * refresh_us,
            oldest_us=None if ttl_us is None else at - ttl_us,
            as_known=True,
        )
        for key, at in asked
    ]


def test_whole_numbers_beyond_a_double_are_summed_exactly() -> None:
    events = [Event((1, "a"), at, at, 2**53 + 1, True) for at in range(3)]
    plan = ViewPlan(
        keys=("number", "text"),
        windowed=(
            WindowedFeature(
                name="total", function="sum", over_us=100, column="value", filter_column=None
            ),
        ),
    )
    spine, at_us = asked_as_table([((1, "a"), 5)])
    got = evaluated(plan, as_table(events, pa.int64()), spine, at_us)
    assert got["total"].to_pylist() == [3 * (2**53 + 1)]


def of_one_entity(values: pa.Array, features: tuple[WindowedFeature, ...], **plan: Any) -> Any:
    """The features at the last of the moments 0, 1, 2 ... at which the values occur."""
    moments = range(len(values))
    table = pa.table(
        {"key": ["a"] * len(values), "event_time": pa.array(moments, INSTANT), "value": values}
    )
    whole = ViewPlan(keys=("key",), windowed=features, **plan)
    spine = pa.table({"key": ["a"]})
    return evaluated(whole, table, spine, np.array([len(values)])).to_pylist()


@pytest.mark.parametrize(
    "values",
    [
        [2**53 + 1, 2**53 + 3, 2**53 + 5, 2**53 + 7],
        [2**62, -(2**62), 2**63 - 1, -(2**63)],
        [1, 10**18, 10**18 + 1],
    ],
)
def test_the_deviation_of_large_whole_numbers_is_that_of_their_digits(values: list[int]) -> None:
    (found,) = of_one_entity(pa.array(values, pa.int64()), (feature("stddev"),))
    with localcontext(Context(prec=60)):
        mean = sum(map(Decimal, values)) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        exact = float(Decimal(squares / (len(values) - 1)).sqrt())
    assert found["stddev"] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([0.0, -0.0, 1.0]), 2),
        (pa.array([5, 5, None], INSTANT), 1),
        (pa.array([None, None], INSTANT), 0),
    ],
)
def test_what_is_equal_counts_once(values: pa.Array, expected: int) -> None:
    (found,) = of_one_entity(values, (feature("count_distinct"),))
    assert found["count_distinct"] == expected


def feature(function: AggregationFunction, over_us: int | None = None) -> WindowedFeature:
    column = None if function == "count" else "value"
    return WindowedFeature(
        name=function, function=function, over_us=over_us, column=column, filter_column=None
    )


def test_a_sum_that_64_bits_cannot_hold_is_an_error_and_not_a_wrong_number() -> None:
    largest = pa.array([2**62, 2**62 - 1])
    assert of_one_entity(largest, (feature("sum"),)) == [{"sum": 2**63 - 1}]
    with pytest.raises(NumberOverflow, match="Feature 'sum'"):
        of_one_entity(pa.array([2**62, 2**62]), (feature("sum"),))
    # As doubles these sum to less than 2^63.
    rounded_down = pa.array([2**53 + 1] * 1023 + [2**53 - 1000])
    with pytest.raises(NumberOverflow, match="Feature 'sum'"):
        of_one_entity(rounded_down, (feature("sum"),))


@settings(deadline=None, max_examples=200)
@given(near | far, st.sampled_from([1, 10, 25, None]), st.booleans(), st.booleans())
def test_means_of_numbers_whose_sum_64_bits_cannot_hold(
    drawn: tuple[list[Event], Asked], over_us: int | None, filtered: bool, as_known: bool
) -> None:
    def large(number: int | None) -> int | None:
        return None if number is None else number + (3 * 2**61 if number >= 0 else -3 * 2**61)

    # Two entities, so that many rows fall into one window.
    events = [
        Event((e.key[0] % 2, "a"), e.event_us, e.created_us, large(e.value), e.passes)
        for e in drawn[0]
    ]
    asked = [((0 if key[0] is None else key[0] % 2, "a"), at) for key, at in drawn[1]]
    mean = WindowedFeature(
        name="mean",
        function="mean",
        over_us=over_us,
        column="value",
        filter_column="passes" if filtered else None,
    )
    plan = ViewPlan(keys=("number", "text"), windowed=(mean,), as_known=as_known)
    spine, at_us = asked_as_table(asked)
    got = evaluated(plan, as_table(events, pa.int64()), spine, at_us)["mean"].to_pylist()
    expected = [
        aggregated(
            events,
            key,
            at,
            function="mean",
            over_us=over_us,
            counts_rows=False,
            filtered=filtered,
            as_known=as_known,
        )
        for key, at in asked
    ]
    assert got == [
        None if value is None else pytest.approx(value, rel=1e-15, abs=0) for value in expected
    ]


@pytest.mark.parametrize(
    "values",
    [
        [2**62] * 4,
        [2**63 - 1] * 300,
        [-(2**63)] * 3,
        [2**63 - 1, 2**63 - 1, -(2**63), 1],
        [2**63 - 1, -(2**63), None],
    ],
)
def test_a_mean_fits_where_its_sum_does_not(values: list[int | None]) -> None:
    counted = [value for value in values if value is not None]
    (found,) = of_one_entity(pa.array(values, pa.int64()), (feature("mean"),))
    assert found["mean"] == pytest.approx(sum(counted) / len(counted), rel=1e-15, abs=0)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["Oslo", None, "Bergen", "Oslo"]),
        pa.array([True, None, False, True]),
        pa.array([1, None, 2, 1], pa.timestamp("us", "UTC")),
        pa.array([Decimal("1.0"), None, Decimal("2.5"), Decimal("1.0")]),
    ],
)
def test_first_last_and_distinct_take_values_of_any_type(values: pa.Array) -> None:
    wanted = (feature("first"), feature("last"), feature("count_distinct"))
    first, _, _, last = values.to_pylist()
    assert of_one_entity(values, wanted) == [{"first": first, "last": last, "count_distinct": 2}]


def test_decimals_are_summed_exactly_beyond_64_bits() -> None:
    random = np.random.default_rng(3)
    most = 10**18 - 1
    signed = random.integers(-most, most, 300).tolist()
    for numbers in (signed, [most] * 200, [-most] * 200, [2**32 - 1] * 3):
        values = [Decimal(number).scaleb(-2) for number in numbers]
        total = sum(numbers)
        (row,) = of_one_entity(pa.array(values, pa.decimal128(18, 2)), (feature("sum"),))
        assert row["sum"] == Decimal(total).scaleb(-2, Context(prec=38))


def test_first_and_last_take_lists_as_they_are() -> None:
    values = pa.array([[1.5, None], None, [], []], pa.list_(pa.float64()))
    assert of_one_entity(values, (feature("first"), feature("last"), feature("count"))) == [
        {"first": [1.5, None], "last": [], "count": 4}
    ]


def test_a_difference_that_38_digits_cannot_hold_is_an_error() -> None:
    largest = Decimal("9" * 38)
    derived = (DerivedFeature(name="range", operation="difference", left="last", right="first"),)
    wanted = (feature("first"), feature("last"))
    fits = pa.array([Decimal(1), largest], pa.decimal128(38, 0))
    (row,) = of_one_entity(fits, wanted, derived=derived)
    assert row["range"] == Decimal("9" * 37 + "8")
    with pytest.raises(NumberOverflow, match="'range': A difference does not fit"):
        of_one_entity(pa.array([-largest, largest]), wanted, derived=derived)


def test_a_deviation_does_not_drown_in_a_large_mean() -> None:
    values = pa.array([1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.3])
    (row,) = of_one_entity(values, (feature("stddev"),))
    assert row["stddev"] == pytest.approx(0.1, rel=1e-6)


def test_ratios_and_differences_of_features() -> None:
    derived = (
        DerivedFeature(name="mean_again", operation="ratio", left="sum", right="count"),
        DerivedFeature(name="by_zero", operation="ratio", left="sum", right="min"),
        DerivedFeature(name="range", operation="difference", left="max", right="min"),
    )
    wanted = tuple(feature(name) for name in ("count", "sum", "min", "max"))
    (row,) = of_one_entity(pa.array([0, 4, 5]), wanted, derived=derived)
    assert (row["mean_again"], row["by_zero"], row["range"]) == (3.0, None, 5)


def test_a_ratio_of_whole_numbers_beyond_a_double_is_that_of_the_nearest() -> None:
    derived = (
        DerivedFeature(name="share", operation="ratio", left="max", right="sum"),
        DerivedFeature(name="away", operation="difference", left="sum", right="mean"),
    )
    wanted = tuple(feature(name) for name in ("sum", "max", "mean"))
    (row,) = of_one_entity(pa.array([2**53, 2**53 + 2, 3]), wanted, derived=derived)
    assert row["share"] == pytest.approx(0.5)
    assert row["away"] == pytest.approx(2**55 / 3)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.integers(0, 9), max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(-1, 9)), max_size=12),
)
def test_the_last_value_at_most(values: list[int], asked: list[tuple[int, int, int]]) -> None:
    ranges = [(min(a, len(values)), min(b, len(values)), limit) for a, b, limit in asked]
    columns = [np.array(column, np.int64) for column in zip(*ranges, strict=True)] or [
        np.zeros(0, np.int64)
    ] * 3
    got = last_at_most(np.array(values, np.int64), *columns)
    assert got.tolist() == [
        max((n for n in range(start, end) if values[n] <= limit), default=-1)
        for start, end, limit in ranges
    ]
