"""The row groups of a bucket's files: which keys and times each has, by its own statistics."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# A file of the bucket, counted from 0, and a row group of that.
Group = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """`ranges` has the lowest and the highest value of columns where the file says so.

    Instants are microseconds.
    """

    group: Group
    rows: int
    ranges: dict[str, tuple[Any, Any]]


def row_groups(number: int, file: pq.ParquetFile, columns: Sequence[str]) -> list[RowGroup]:
    """Those of the bucket's file of that number, in their order. Reads no data."""
    places = {name: file.schema_arrow.get_field_index(name) for name in columns}
    found = []
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        ranges = {}
        for name, place in places.items():
            statistics = meta.column(place).statistics
            if statistics is not None and statistics.has_min_max:
                is_raw = pa.types.is_timestamp(file.schema_arrow.field(place).type)
                lowest, highest = (
                    (statistics.min_raw, statistics.max_raw)
                    if is_raw
                    else (statistics.min, statistics.max)
                )
                ranges[name] = (lowest, highest)
        found.append(RowGroup(group=(number, group), rows=meta.num_rows, ranges=ranges))
    return found


def groups_with(groups: Sequence[RowGroup], name: str, only: pa.Array) -> list[RowGroup]:
    """The row groups whose range of `name` holds a value of `only`, or that do not say."""
    wanted = sorted(value for value in only.to_pylist() if value is not None)
    kept = []
    for group in groups:
        if name in group.ranges:
            lowest, highest = group.ranges[name]
            if bisect_left(wanted, lowest) >= bisect_right(wanted, highest):
                continue
        kept.append(group)
    return kept


def size_of(file: pq.ParquetFile, groups: Sequence[int], names: Sequence[str]) -> int:
    """How many bytes of the file these columns of these row groups are."""
    places = [file.schema_arrow.get_field_index(name) for name in names]
    return sum(
        file.metadata.row_group(group).column(place).total_compressed_size
        for group in groups
        for place in places
    )
