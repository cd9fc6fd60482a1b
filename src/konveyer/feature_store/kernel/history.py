"""History: one bucket of a view's rows, sorted by entity and time, ready for searching."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
EVENT_TIME, CREATED_TIME = "event_time", "created_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Rows in the order (entity, event time, created time).

    The rows of entity code `c` are `starts[c]:starts[c + 1]`; `event_us` rises inside them.
    `created_us` is None when the view does not record when a row became known. `first_rows[c]`
    holds the join keys of an entity: it is `rows` at `starts`.
    """

    rows: pa.Table
    keys: tuple[str, ...]
    starts: Ints
    event_us: Ints
    created_us: Ints | None

    @property
    def entities(self) -> pa.Table:
        """The join keys of each entity code, in the order of the codes."""
        return self.rows.select(list(self.keys)).take(pa.array(self.starts[:-1]))


def history_of(rows: pa.Table, keys: Sequence[str]) -> History:
    """Sort `rows` unless they are sorted; keys and event times must not be null."""
    rows = rows.combine_chunks()
    codes = _codes([rows.column(key) for key in keys])
    event_us = instants(rows.column(EVENT_TIME))
    created = CREATED_TIME in rows.column_names
    created_us = instants(rows.column(CREATED_TIME)) if created else None
    order_by = [codes, event_us] if created_us is None else [codes, event_us, created_us]
    if not _is_sorted(order_by):
        order = np.lexsort(order_by[::-1])
        rows, codes, event_us = rows.take(pa.array(order)), codes[order], event_us[order]
        created_us = created_us[order] if created_us is not None else None
    changes = np.flatnonzero(np.diff(codes)) + 1
    bounds = [np.zeros(min(1, len(codes)), np.int64), changes, np.full(1, len(codes))]
    return History(
        rows=rows,
        keys=tuple(keys),
        starts=np.concatenate(bounds).astype(np.int64),
        event_us=event_us,
        created_us=created_us,
    )


def codes_in(history: History, spine: pa.Table) -> Ints:
    """The entity code of each spine row; -1 for a null key and for an entity without rows."""
    entities = history.entities
    both = [
        pa.chunked_array([*entities.column(key).chunks, *spine.column(key).chunks])
        for key in history.keys
    ]
    codes = _codes(both)
    known, asked = codes[: len(entities)], codes[len(entities) :]
    if not len(known):
        return np.full(len(spine), -1, np.int64)
    order = np.argsort(known)
    place = np.searchsorted(known, asked, sorter=order)
    found = order[np.minimum(place, len(known) - 1)]
    matches = (known[found] == asked) & (asked >= 0)
    return np.where(matches, found, -1).astype(np.int64)


def instants(column: pa.ChunkedArray) -> Ints:
    """Microseconds since 1970 of a timestamp column; naive means UTC. There must be no nulls."""
    micros = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return np.asarray(micros.to_numpy(), dtype=np.int64)


def _codes(columns: Sequence[pa.ChunkedArray]) -> Ints:
    """Equal rows get equal codes and different rows different ones; a row with a null gets -1.

    Codes are made dense after each column, so that no number of columns overflows.
    """
    combined: Ints = np.zeros(len(columns[0]), np.int64)
    missing = np.zeros(len(combined), bool)
    for column in columns:
        encoded: Any = pc.dictionary_encode(column).combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.unify_dictionaries().combine_chunks()
        missing |= np.asarray(column.is_null().to_numpy())
        part = np.asarray(pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False))
        if len(columns) == 1:
            combined = part.astype(np.int64)
            break
        pairs = combined * (len(encoded.dictionary) + 1) + part
        combined = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
    return np.where(missing, -1, combined)


def _is_sorted(columns: Sequence[Ints]) -> bool:
    """Whether the rows rise lexicographically."""
    tied = np.ones(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        step = np.sign(np.diff(column)) if len(column) else np.zeros(0, np.int64)
        if (tied & (step < 0)).any():
            return False
        tied &= step == 0
    return True
