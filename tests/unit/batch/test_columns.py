"""A batch is prepared column by column to what its rows are prepared to."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.plan import Plan
from konveyer.execution.batch.columns import ArrowColumns

TYPES = {
    "count": pa.int64(),
    "amount": pa.float64(),
    "city": pa.string(),
    "active": pa.bool_(),
    "price": pa.decimal128(12, 4),
    "opened": pa.timestamp("us", "UTC"),
}
NAN = "nan"
PLAN = {
    "sources": [
        {"feature": 2, "codes": [["Oslo", 0.0], ["", 1.0], [None, NAN]], "unseen": -1.0},
        {"feature": 0, "codes": None},
        {"feature": 1, "codes": None},
        {"feature": 0, "codes": [[7, 1.0], [None, 3.0]], "unseen": 0.0},
        {"feature": 3, "codes": [[True, 1.0], [False, 0.0], [None, NAN]], "unseen": NAN},
        {"feature": 3, "codes": None},
        {"feature": 4, "codes": None},
        {"feature": 5, "codes": None},
    ],
    "steps": [{"kind": "impute", "columns": [2], "values": [[0, 0, 40.0, 0, 0, 0, 0, 0]]}],
    "finite": False,
}
ROWS = st.lists(
    st.tuples(
        st.none() | st.sampled_from([0, 7, -1, 2**53 + 1, 2**63 - 1]),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.sampled_from(["Oslo", "", "Rome", "ö"]),
        st.none() | st.booleans(),
        st.none() | st.decimals(-99999999, 99999999, places=4),
        st.none() | st.datetimes(datetime(1900, 1, 1), datetime(9999, 1, 1)),
    ),
    max_size=12,
)


def as_batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    arrays = []
    for place, dtype in enumerate(TYPES.values()):
        values = [row[place] for row in rows]
        if pa.types.is_timestamp(dtype):
            values = [None if one is None else one.replace(tzinfo=UTC) for one in values]
        arrays.append(pa.array(values, dtype))
    return pa.RecordBatch.from_arrays(arrays, names=[*TYPES])


def as_rows(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    opened = batch.column("opened").cast(pa.int64())
    columns = [*(batch.column(name) for name in [*TYPES][:-1]), opened]
    return [*zip(*(column.to_pylist() for column in columns), strict=True)]


@given(ROWS)
def test_columns_are_prepared_as_rows_are(rows: list[tuple[Any, ...]]) -> None:
    plan, batch = Plan(PLAN, [*TYPES]), as_batch(rows)
    by_columns = plan.matrix_of(ArrowColumns(batch, [*TYPES]))
    np.testing.assert_array_equal(by_columns, plan.matrix(as_rows(batch)))


def test_a_value_that_a_model_does_not_take_is_an_error_in_both() -> None:
    codes = [["Oslo", 0.0]]
    plan = Plan(
        {"sources": [{"feature": 0, "codes": codes, "unseen": None}], "steps": [], "finite": False},
        ["city"],
    )
    batch = pa.RecordBatch.from_pydict({"city": ["Oslo", "Rome"]})
    with pytest.raises(ModelFailed, match="takes no 'Rome' for the feature 'city'"):
        plan.matrix_of(ArrowColumns(batch, ["city"]))
    with pytest.raises(ModelFailed, match="takes no 'Rome' for the feature 'city'"):
        plan.matrix([("Oslo",), ("Rome",)])


def test_a_price_is_the_nearest_float() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array([Decimal("99999999.9999"), None], pa.decimal128(12, 4))], names=["price"]
    )
    found = ArrowColumns(batch, ["price"]).numbers(0)
    assert found[0] == 99999999.9999
    assert np.isnan(found[1])
