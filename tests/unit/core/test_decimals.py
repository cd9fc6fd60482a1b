"""Decimals as whole numbers and fractions, and digests of decimals and lists."""

from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konveyer.core.decimals import decimals_of, nearest_doubles, words_of
from konveyer.core.digests import table_digest
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import DecimalType, ListType, column_type, parse_dtype


def decimals(numbers: list[int | None], scale: int) -> pa.Array:
    exact = Context(prec=38)
    values = [None if n is None else Decimal(n).scaleb(-scale, exact) for n in numbers]
    return pa.array(values, pa.decimal128(38, scale))


wide = st.integers(-(10**38) + 1, 10**38 - 1)
short = st.integers(-(10**18) + 1, 10**18 - 1)
some = st.lists(st.none() | short | wide, max_size=20)


@settings(deadline=None)
@given(some, st.sampled_from([0, 2, 18, 30, 38]), st.integers(0, 3))
def test_a_decimal_is_two_words_and_the_nearest_double(
    numbers: list[int | None], scale: int, skipped: int
) -> None:
    values = decimals(numbers, scale).slice(min(skipped, len(numbers)))
    again = decimals_of(*words_of(values), values.type, np.asarray(values.is_valid()))
    assert again.equals(values)
    expected = [None if value is None else float(value) for value in values.to_pylist()]
    assert nearest_doubles(pa.chunked_array([values])).to_pylist() == expected


def test_arrow_and_a_plain_division_are_one_off_where_this_is_not() -> None:
    random = np.random.default_rng(5)
    values = decimals(random.integers(-(10**17), 10**17, 2000).tolist(), 4)
    expected = [float(value) for value in values.to_pylist()]
    assert nearest_doubles(values).to_pylist() == expected
    assert values.cast(pa.float64()).to_pylist() != expected
    assert (words_of(values)[0] / 10.0**4).tolist() != expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([[1, None]], [[1]]),
        ([[1, None]], [[1, 0]]),
        ([[1], [2]], [[1, 2], []]),
        ([None], [[]]),
        ([["a", "b"]], [["ab", ""]]),
        ([[0.0]], [[None]]),
        ([Decimal("1.0")], [Decimal("-1.0")]),
        ([Decimal(2**64)], [Decimal(2**65)]),
        ([None], [Decimal("0.0")]),
    ],
)
def test_other_values_have_another_digest(one: list[Any], other: list[Any]) -> None:
    is_list = any(isinstance(value, list) for value in (*one, *other))
    kind = pa.decimal128(38, 1)
    if is_list:
        kind = next((pa.array([value]).type for value in one if value), pa.list_(pa.int64()))
    first, second = (pa.table({"a": pa.array(values, kind)}) for values in (one, other))
    assert table_digest(first) != table_digest(second)
    parts = pa.concat_tables([first.slice(0, 1), first.slice(1)])
    assert table_digest(parts) == table_digest(first)


@pytest.mark.parametrize(
    "text", ["decimal", "decimal(39,2)", "decimal(2,3)", "decimal(0,0)", "list<uuid>", "list<x>"]
)
def test_a_type_that_there_is_not(text: str) -> None:
    with pytest.raises(KonveyerError, match="There is no type") as caught:
        parse_dtype(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["decimal(38,38)", "decimal(1,0)", "list<bool>", "list<string>"])
def test_a_type_is_what_its_arrow_type_is(text: str) -> None:
    found = parse_dtype(text)
    assert isinstance(found, DecimalType | ListType)
    assert (str(found), column_type(found.arrow, where="")) == (text, found)
