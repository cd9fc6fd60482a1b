"""Digests of tables: equal content gives equal digests, however it is chunked."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# A table is a list of blocks of so many rows, which may be digested at different places.
BLOCK_ROWS = 2**18


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
    for column in table.combine_chunks().columns:
        hasher.update(np.asarray(pc.is_null(column)).tobytes())
        hasher.update(_content(column))
    return f"sha256:{hasher.hexdigest()}"


def _content(column: pa.ChunkedArray) -> bytes:
    """The values one after another; what is null, `table_digest` has told already."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return np.asarray(column.cast(pa.int64()).fill_null(0)).tobytes()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column.fill_null(0)).tobytes()
    if pa.types.is_boolean(kind):
        return np.asarray(column.fill_null(False)).tobytes()
    texts = column.cast(pa.string()).fill_null("")
    lengths = pc.binary_length(texts.cast(pa.binary()))
    return np.asarray(lengths).tobytes() + "".join(texts.to_pylist()).encode()
