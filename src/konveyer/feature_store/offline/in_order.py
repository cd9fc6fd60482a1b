"""Rows in the order that engines put them in, made by Arrow alone: for a few rows."""

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def sorted_rows(rows: pa.Table, order: Sequence[str]) -> pa.Table:
    """By each column of `order`, nulls last.

    Lists by their items; a null item comes after all others, and a list after one that it begins
    with.

    >>> rows = pa.table({"a": [[2, None], [2, 3], None, [2]]})
    >>> sorted_rows(rows, ["a"])["a"].to_pylist()
    [[2], [2, 3], [2, None], None]
    """
    keys = pa.table({name: _sortable(rows.column(name)) for name in order})
    places = pc.sort_indices(keys, [(name, "ascending") for name in order])
    return rows.take(places)


def _sortable(column: pa.ChunkedArray) -> Any:
    """Arrow sorts no lists: whole numbers in their place."""
    if not pa.types.is_nested(column.type):
        return column
    keys = [None if value is None else _key(value) for value in column.to_pylist()]
    ranks = {key: rank for rank, key in enumerate(sorted({key for key in keys if key is not None}))}
    return pa.array([None if key is None else ranks[key] for key in keys], pa.int64())


def _key(items: list[Any]) -> tuple[tuple[Any, ...], ...]:
    """A NaN is greater than all numbers."""
    return tuple(
        (2, 0) if item is None else (1, 0) if _is_nan(item) else (0, item) for item in items
    )


def _is_nan(item: Any) -> bool:
    return isinstance(item, float) and math.isnan(item)
