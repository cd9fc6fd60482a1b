"""The layout of an offline table: buckets by entity key, sorted by key and time inside.

The bucket of a row is the same in every engine: the lower 64 bits of the MD5 of its join keys as
text, each preceded by its length (so that keys that concatenate alike differ), modulo the count.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.core.schema import Column, ColumnType, DecimalType, Dtype, ListType, ScalarColumn
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME

Numbers = npt.NDArray[np.uint16]
BUCKET = "bucket"
ROWS_PER_BUCKET = 500_000
MOST_BUCKETS = 2**16
INSTANT = ColumnType.TIMESTAMP.arrow


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """The columns of a view's offline table, and the SQL that gives each from the view's rows.

    `expressions` pairs each column after the keys and times with its SQL; `created_time` is the
    column that says when a row became known, or None.
    """

    keys: tuple[ScalarColumn, ...]
    event_time: str
    created_time: str | None
    expressions: tuple[tuple[Column, str], ...]

    @property
    def schema(self) -> pa.Schema:
        created = [] if self.created_time is None else [(CREATED_TIME, INSTANT)]
        columns = [(key.name, key.dtype.arrow) for key in self.keys]
        inputs = [(column.name, column.dtype.arrow) for column, _ in self.expressions]
        return pa.schema([(BUCKET, pa.int32()), *columns, (EVENT_TIME, INSTANT), *created, *inputs])

    @property
    def order(self) -> tuple[str, ...]:
        """By what the rows of a bucket are sorted.

        Last by all that a row has: rows of one moment have no order of their own, and every engine
        has to put them in the same one.
        """
        return tuple(name for name in self.schema.names if name != BUCKET)


def bucket_count(rows: int) -> int:
    """A power of two that keeps buckets near `ROWS_PER_BUCKET`.

    The bucket of a row among fewer buckets is its bucket among more, modulo the fewer.

    >>> bucket_count(100_000), bucket_count(2_000_000)
    (1, 4)
    """
    buckets = 1
    while buckets * ROWS_PER_BUCKET < rows and buckets < MOST_BUCKETS:
        buckets *= 2
    return buckets


def bucket_numbers(keys: Sequence[ScalarColumn], rows: pa.Table) -> Numbers:
    """What `bucket_sql` gives among `MOST_BUCKETS`, for rows that are in memory anyway.

    >>> client = ScalarColumn("client", ColumnType.INT64)
    >>> bucket_numbers([client], pa.table({"client": [7]})).tolist()
    [40267]
    """
    texts = [_texts(rows.column(key.name), key.dtype) for key in keys]
    parts = ("".join(f"{len(text)}:{text}" for text in row) for row in zip(*texts, strict=True))
    digests = [hashlib.md5(part.encode(), usedforsecurity=False).digest() for part in parts]
    return np.frombuffer(b"".join(digests), "<u2").reshape(-1, 8)[:, 4]


def _texts(column: pa.ChunkedArray, dtype: ColumnType) -> Sequence[str]:
    values = column.to_pylist()
    if dtype is ColumnType.UUID:
        return ["" if value is None else str(UUID(value)) for value in values]
    return ["" if value is None else str(value) for value in values]


def bucket_sql(keys: Sequence[ScalarColumn], buckets: int) -> str:
    """The SQL expression of a row's bucket, a 32-bit whole number; `buckets` is a power of two."""
    # DuckDB's `md5_number_lower` is the same, in four times the time.
    return f"CAST((md5_number({identity_sql(keys)}) >> 64) & {buckets - 1} AS INTEGER)"


def identity_sql(keys: Sequence[ScalarColumn]) -> str:
    """The SQL expression of a row's join keys as one text; different keys give different texts."""
    texts = [f"CAST({sql_cast(quoted(key.name), key.dtype)} AS VARCHAR)" for key in keys]
    parts = [f"length({text}), ':', {text}" for text in texts]
    return f"concat({', '.join(parts)})"


def layout_sql(layout: TableLayout, rows_sql: str, *, buckets: int, until_us: int) -> str:
    """One SELECT that narrows `rows_sql` to the layout; instants are microseconds.

    Rows without a key or an event time, and rows later than `until_us`, are left out.
    """
    keys = [quoted(key.name) for key in layout.keys]
    event_time = quoted(layout.event_time)
    selected = [f"{bucket_sql(layout.keys, buckets)} AS {BUCKET}"]
    for name, key in zip(keys, layout.keys, strict=True):
        selected.append(f"{sql_cast(name, key.dtype)} AS {name}")
    selected.append(f"epoch_us({event_time}) AS {EVENT_TIME}")
    if layout.created_time is not None:
        # When it became known was not recorded: not before it happened.
        created = f"coalesce(epoch_us({quoted(layout.created_time)}), epoch_us({event_time}))"
        selected.append(f"{created} AS {CREATED_TIME}")
    selected += [f"{sql} AS {quoted(column.name)}" for column, sql in layout.expressions]
    present = [f"{name} IS NOT NULL" for name in (*keys, event_time)]
    condition = " AND ".join([*present, f"epoch_us({event_time}) <= {until_us}"])
    return (
        f"SELECT {', '.join(selected)} FROM ({rows_sql}) AS source_rows "  # noqa: S608
        f"WHERE {condition}"
    )


def quoted(name: str) -> str:
    """A column's or table's name in SQL, whatever it is.

    >>> quoted("order")
    '"order"'
    """
    return '"' + name.replace('"', '""') + '"'


def sql_cast(expression: str, dtype: Dtype) -> str:
    """`expression` as the SQL type that arrives as `dtype`; instants arrive as microseconds."""
    match dtype:
        case ColumnType.TIMESTAMP:
            return f"epoch_us({expression})"
        case ColumnType.UUID:
            return f"CAST(CAST({expression} AS UUID) AS VARCHAR)"
        case _:
            return f"CAST({expression} AS {_sql_type(dtype)})"


def _sql_type(dtype: Dtype) -> str:
    match dtype:
        case ColumnType.INT64:
            return "BIGINT"
        case ColumnType.FLOAT64:
            return "DOUBLE"
        case ColumnType.BOOL:
            return "BOOLEAN"
        case ColumnType.STRING | ColumnType.UUID:
            return "VARCHAR"
        case ColumnType.TIMESTAMP:
            return "TIMESTAMP"
        case DecimalType(precision=precision, scale=scale):
            return f"DECIMAL({precision}, {scale})"
        case ListType(item=item):
            return f"{_sql_type(item)}[]"
        case _:
            assert_never(dtype)
