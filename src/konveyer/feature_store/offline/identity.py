"""Whom rows are of: the digest that recognises an entity without its key, and its rows in files."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.files import file_written_whole, flushed_folder
from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.offline.layout import identity_sql

Key = Mapping[str, int | str]


def key_digest(values: Sequence[int | str]) -> str:
    """Of the join keys in the order of the entity's; the same as `digest_sql` gives.

    >>> key_digest(["ab", 7]) == key_digest(["a", "b7"])
    False
    """
    text = "".join(f"{len(str(value))}:{value}" for value in values)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_sql(keys: Sequence[ScalarColumn]) -> str:
    """The SQL expression of a row's digest, as lower-case hexadecimal text."""
    return f"sha256({identity_sql(keys)})"


def rows_in_file(path: Path, key: Key) -> int:
    """How many rows of a Parquet file are of the entity; 0 when the file is gone or unfinished."""
    try:
        return rows_in_whole_file(path, key)
    except (FileNotFoundError, pa.ArrowInvalid):
        return 0


def rows_in_whole_file(path: Path, key: Key) -> int:
    """The same of a file that must be there. Row groups that cannot hold the key are not read."""
    filters = [(name, "==", value) for name, value in key.items()]
    return len(pq.read_table(path, columns=list(key), filters=filters, partitioning=None))


def is_unfinished(path: Path) -> bool:
    """Whether nobody can tell whose rows are in a file: its writer was killed, or it is damaged."""
    try:
        pq.read_metadata(path)
    except FileNotFoundError:
        return False
    except pa.ArrowException:
        return True
    return False


def rewrite_without(path: Path, key: Key, **options: Any) -> None:
    """Take an entity's rows out of a Parquet file. Who has it open goes on reading the old one.

    `options` are those of Arrow's writer. Harmless when the file is gone.
    """
    if not path.exists():
        return
    kept = without(pq.read_table(path, partitioning=None), key)
    with file_written_whole(path) as draft:
        pq.write_table(kept, draft, **options)
        with draft.open("rb") as written:  # other table versions have this file too
            os.fsync(written.fileno())
    flushed_folder(path.parent)


def without(rows: pa.Table, key: Key) -> pa.Table:
    """The rows of everybody else, in their order.

    >>> without(pa.table({"client": [1, 2, 1], "n": [1, 2, 3]}), {"client": 1})["n"].to_pylist()
    [2]
    """
    mine = None
    for name, value in key.items():
        equal = pc.equal(rows.column(name), pa.scalar(value, rows.schema.field(name).type))
        mine = equal if mine is None else pc.and_(mine, equal)
    return rows if mine is None else rows.filter(pc.invert(mine.combine_chunks()))
