"""What is decoded of a record is what was encoded, bit for bit, for values of every type."""

import struct
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from konveyer.core.schema import Column, ColumnType, parse_dtype
from konveyer.feature_store.online.codec import RecordCodec

whole = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=5)
DIGITS = Context(prec=38)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": whole,
    "float64": st.floats(),
    "bool": st.booleans(),
    "string": texts,
    "timestamp": whole,  # in microseconds
    "decimal(9,2)": st.integers(-(10**9) + 1, 10**9 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    "decimal(38,38)": st.integers(-(10**38) + 1, 10**38 - 1).map(
        lambda n: Decimal(n).scaleb(-38, DIGITS)
    ),
    "list<int64>": st.lists(st.none() | whole, max_size=4),
    "list<float64>": st.lists(st.none() | st.floats(), max_size=4),
    "list<bool>": st.lists(st.none() | st.booleans(), max_size=4),
    "list<string>": st.lists(st.none() | texts, max_size=4),
}
COLUMNS = tuple(Column(f"c{place}", parse_dtype(text)) for place, text in enumerate(VALUES))
rows = st.lists(st.tuples(*(st.none() | values for values in VALUES.values())), max_size=6)


def bits(value: Any) -> Any:
    """A float by its bits, so that zeros of either sign differ; a NaN is one."""
    match value:
        case float():
            return struct.pack("<d", value) if value == value else "NaN"
        case list():
            return [bits(item) for item in value]
        case Decimal():
            return value.as_tuple()
        case _:
            return type(value), value


@settings(deadline=None)
@given(rows, st.integers(0, 2))
def test_every_value_comes_back(drawn: list[tuple[Any, ...]], skipped: int) -> None:
    arrays = [
        pa.array([row[place] for row in drawn], column.dtype.arrow)
        for place, column in enumerate(COLUMNS)
    ]
    table = pa.table(arrays, names=[column.name for column in COLUMNS])
    skipped = min(skipped, len(drawn))
    codec = RecordCodec(COLUMNS)
    records = codec.encode(table.slice(skipped), range(len(drawn) - skipped))
    decoded = [codec.decode(record) for record in records]
    assert [at for at, _ in decoded] == list(range(len(drawn) - skipped))
    assert [[bits(value) for value in values] for _, values in decoded] == [
        [bits(value) for value in row] for row in drawn[skipped:]
    ]


def test_the_digits_are_a_part_of_the_fingerprint() -> None:
    one, other = (RecordCodec([Column("a", parse_dtype(f"decimal(9,{n})"))]) for n in (2, 3))
    assert one.fingerprint != other.fingerprint
    assert RecordCodec([Column("a", ColumnType.INT64)]).fingerprint not in (
        one.fingerprint,
        other.fingerprint,
    )
