"""Digests of tables: equal content gives equal digests, however it is chunked."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def table_digest(table: pa.Table) -> str:
    """Of the schema and the values, in order.

    >>> one, two = pa.table({"a": [1, 2]}), pa.concat_tables([pa.table({"a": [1]})] * 2)
    >>> table_digest(one) == table_digest(two)
    False
    """
    hasher = hashlib.sha256(table.schema.to_string(show_schema_metadata=False).encode())
    for column in table.unify_dictionaries().combine_chunks().columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)  # noqa: PLW2901 - the same values
        hasher.update(np.asarray(pc.is_null(column)).tobytes())
        if _is_text(column.type):
            texts = column.fill_null("")
            hasher.update(np.asarray(pc.binary_length(texts.cast(pa.binary()))).tobytes())
            hasher.update("".join(texts.to_pylist()).encode())
        elif pa.types.is_boolean(column.type):
            hasher.update(np.asarray(column.fill_null(False)).tobytes())
        else:
            plain = column.cast(pa.int64()) if pa.types.is_temporal(column.type) else column
            hasher.update(np.asarray(plain.fill_null(0)).tobytes())
    return f"sha256:{hasher.hexdigest()}"


def _is_text(kind: pa.DataType) -> bool:
    return any(is_one(kind) for is_one in (pa.types.is_string, pa.types.is_large_string))
