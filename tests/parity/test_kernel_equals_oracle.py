"""The kernel gives what the naive oracle gives, for histories that Hypothesis makes up."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konveyer.core.schema import ColumnType
from konveyer.feature_store.kernel.evaluate import ViewPlan, WindowedFeature, evaluate
from konveyer.feature_store.kernel.history import history_of
from tests.parity.oracle import Event, aggregated, newest

INSTANT = ColumnType.TIMESTAMP.arrow
FUNCTIONS = ("count", "sum", "mean", "min", "max")
# Few distinct moments, so that ties and window bounds meet; some before 1970.
moments = st.integers(-6, 12).map(lambda tick: tick * 10)
numbers = st.one_of(st.none(), st.integers(-(2**60), 2**60))
keys = st.tuples(st.integers(-2, 2), st.sampled_from(["", "a", "ab", "ы"]))
asked_keys = st.tuples(
    st.one_of(st.none(), st.integers(-3, 3)), st.sampled_from([None, "", "a", "ab", "ы", "z"])
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Rows that differ in (key, event time, created time): the winner is then decided."""
    row = st.tuples(keys, moments, moments, numbers, st.booleans())
    rows = draw(st.lists(row, max_size=25, unique_by=lambda r: r[:3]))
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


def spine_of(asked: list[tuple[tuple[Any, ...], int]]) -> tuple[pa.Table, Any]:
    table = pa.table(
        {
            "number": pa.array([key[0] for key, _ in asked], pa.int64()),
            "text": pa.array([key[1] for key, _ in asked], pa.string()),
        }
    )
    return table, np.array([at for _, at in asked], np.int64)


spines = st.lists(st.tuples(asked_keys, moments), max_size=15)


@settings(deadline=None, max_examples=300)
@given(histories(), spines, st.sampled_from([None, 0, 10, 30]), st.booleans(), st.booleans())
def test_the_newest_visible_row_wins(
    events: list[Event],
    asked: list[tuple[tuple[Any, ...], int]],
    ttl_us: int | None,
    as_known: bool,
    records_created: bool,
) -> None:
    table = as_table(events, pa.int64())
    if not records_created:
        # Without created times a tie of event times is decided by the order of the rows.
        table = table.sort_by([("event_time", "ascending"), ("created_time", "ascending")])
        table = table.drop_columns(["created_time"])
        as_known = False
    plan = ViewPlan(keys=("number", "text"), columns=("value",), ttl_us=ttl_us, as_known=as_known)
    spine, at_us = spine_of(asked)
    got = evaluate(plan, history_of(table, plan.keys), spine, at_us)["value"].to_pylist()
    assert got == [
        newest(
            events, key, at, oldest_us=None if ttl_us is None else at - ttl_us, as_known=as_known
        )
        for key, at in asked
    ]


@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("records_created", [False, True])
@settings(deadline=None, max_examples=150)
@given(histories(), spines, st.sampled_from([1, 10, 25, 1000]), st.booleans(), st.booleans())
def test_windows(
    records_created: bool,
    floats: bool,
    events: list[Event],
    asked: list[tuple[tuple[Any, ...], int]],
    over_us: int,
    filtered: bool,
    as_known: bool,
) -> None:
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
        table, as_known = table.drop_columns(["created_time"]), False
    wanted = [(f, False) for f in FUNCTIONS] + [("count", True)]
    plan = ViewPlan(
        keys=("number", "text"),
        windowed=tuple(
            WindowedFeature(
                name=f"{function}_{counts_rows}",
                function=function,  # type: ignore[arg-type]
                over_us=over_us,
                column=None if counts_rows else "value",
                filter_column="passes" if filtered else None,
            )
            for function, counts_rows in wanted
        ),
        as_known=as_known,
    )
    spine, at_us = spine_of(asked)
    got = evaluate(plan, history_of(table, plan.keys), spine, at_us)
    for function, counts_rows in wanted:
        expected = [
            aggregated(
                events,
                key,
                at,
                function=function,
                over_us=over_us,
                counts_rows=counts_rows,
                filtered=filtered,
                as_known=as_known,
            )
            for key, at in asked
        ]
        values = got[f"{function}_{counts_rows}"].to_pylist()
        if function == "mean":  # one rounding of the sum to a double, one of the division
            near = [
                None if value is None else pytest.approx(value, rel=1e-15) for value in expected
            ]
            assert values == near
        else:
            assert values == expected


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
    spine, at_us = spine_of(asked)
    got = evaluate(plan, history_of(as_table(events, pa.int64()), plan.keys), spine, at_us)
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
    spine, at_us = spine_of([((1, "a"), 5)])
    got = evaluate(plan, history_of(as_table(events, pa.int64()), plan.keys), spine, at_us)
    assert got["total"].to_pylist() == [3 * (2**53 + 1)]
