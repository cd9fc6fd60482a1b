"""Join keys and request fields as people give them in Python."""

from datetime import UTC, datetime
from typing import Any

import pytest

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.typed import BadValue, TypedColumns


@pytest.mark.parametrize(
    ("dtype", "value", "hint"),
    [
        pytest.param(ColumnType.FLOAT64, 10**400, "float64", id="beyond a double"),
        (ColumnType.INT64, 2**63, "int64"),
        (ColumnType.TIMESTAMP, "2026-01-01T00:00:00Z", "a datetime"),
        (ColumnType.UUID, "7", "uuid"),
        pytest.param(ColumnType.STRING, "\ud800", "string", id="half a surrogate pair"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_to_give(
    dtype: ColumnType, value: Any, hint: str
) -> None:
    with pytest.raises(BadValue, match="'at' is") as caught:
        TypedColumns([ScalarColumn("at", dtype)])({"at": value})
    assert caught.value.hint == f"give it as {hint}"


def test_instants_are_microseconds() -> None:
    read = TypedColumns([ScalarColumn("at", ColumnType.TIMESTAMP)])
    assert read({"at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)}) == [1_000_000]
