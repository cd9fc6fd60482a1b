"""Digests of tables: equal content gives equal digests, however it is chunked."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.decimals import words_of
from konveyer.core.schema import MOST_DIGITS

# A table is a list of blocks of so many rows, which may be digested at different places.
BLOCK_ROWS = 2**18
_LONG = 64


def table_digest(table: pa.Table) -> str:
    """Of the schema and the values, in order: `digest_of_blocks` of its blocks.

    >>> one, two = pa.table({"a": [1, 2]}), pa.concat_tables([pa.table({"a": [1]})] * 2)
    >>> table_digest(one) == table_digest(two)
    False
    """
    starts = range(0, len(table) or 1, BLOCK_ROWS)
    return digest_of_blocks([block_digest(table.slice(start, BLOCK_ROWS)) for start in starts])


def digest_of_blocks(digests: Sequence[str]) -> str:
    """The digest of a table from those of its blocks, in order; of one block its own."""
    if len(digests) == 1:
        return digests[0]
    return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"


def block_digest(table: pa.Table) -> str:
    """Of the schema and the values of one block, in order."""
    hasher = hashlib.sha256(table.schema.to_string(show_schema_metadata=False).encode())
    for column in table.columns:
        values = column.combine_chunks()
        hasher.update(np.asarray(values.is_null()).data)
        for part in _content(values):
            hasher.update(part)
    return f"sha256:{hasher.hexdigest()}"


def _content(values: pa.Array) -> Iterator[Any]:
    """The bytes of the values, one after another; what is null, `table_digest` has told already."""
    kind = values.type
    if pa.types.is_list(kind):
        yield np.asarray(pc.list_value_length(values).fill_null(0)).data
        items = values.flatten()
        yield np.asarray(items.is_null()).data
        yield from _content(items)
        return
    if pa.types.is_decimal(kind) and kind.precision <= MOST_DIGITS:
        yield from (np.ascontiguousarray(word).data for word in words_of(values))
        return
    if pa.types.is_temporal(kind):
        values = values.cast(pa.int64() if kind.bit_width == _LONG else pa.int32())
    if pa.types.is_boolean(kind):
        yield np.asarray(values.fill_null(False)).data
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        yield np.asarray(values.fill_null(0)).data
    else:
        text = values.cast(pa.string()) if pa.types.is_decimal(kind) else values
        yield from _texts(text.cast(pa.large_binary()).fill_null(b""))


def _texts(values: pa.LargeBinaryArray) -> Iterator[Any]:
    """The length of each, then all of them."""
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    yield np.diff(bounds).astype(np.int32).data
    yield data[bounds[0] : bounds[-1]]
