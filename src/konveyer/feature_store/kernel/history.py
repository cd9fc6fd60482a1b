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
_LARGEST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Rows in the order (entity, event time, created time).

    The rows of entity code `c` are `starts[c]:starts[c + 1]`; `event_us` rises inside them.
    `created_us` is None when the view does not record when a row became known.

    `places` holds `c * span_us + event_us - first_us` of each row: one number that rises through
    all rows, so that one binary search finds an entity and a time. None when entities and times
    together need more than 63 bits.
    """

    rows: pa.Table
    keys: tuple[str, ...]
    starts: Ints
    event_us: Ints
    created_us: Ints | None
    places: Ints | None
    first_us: int
    span_us: int

    @property
    def entities(self) -> pa.Table:
        """The join keys of each entity code, in the order of the codes."""
        return self.rows.select(list(self.keys)).take(pa.array(self.starts[:-1]))


def history_of(rows: pa.Table, keys: Sequence[str]) -> History:
    """Sort `rows` unless they are sorted; keys and event times must not be null."""
    rows = rows.combine_chunks()
    codes = _history_codes([rows.column(key) for key in keys])
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
    starts = np.concatenate(bounds).astype(np.int64)
    first_us = int(event_us.min()) if len(event_us) else 0
    # One more than the distance, so that "before the first" of an entity is nobody's last moment.
    span_us = int(event_us.max()) - first_us + 2 if len(event_us) else 2
    fits = span_us * len(starts) < _LARGEST
    dense = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) if fits else codes
    return History(
        rows=rows,
        keys=tuple(keys),
        starts=starts,
        event_us=event_us,
        created_us=created_us,
        places=dense * span_us + (event_us - first_us) if fits else None,
        first_us=first_us,
        span_us=span_us,
    )


def codes_in(history: History, spine: pa.Table) -> Ints:
    """The entity code of each spine row; -1 for a null key and for an entity without rows."""
    entities = history.entities
    if not len(entities):
        return np.full(len(spine), -1, np.int64)
    if len(history.keys) == 1 and pa.types.is_int64(entities.column(0).type):
        return _whole_number_codes(entities.column(0), spine.column(history.keys[0]))
    both = [
        pa.chunked_array([*entities.column(key).chunks, *spine.column(key).chunks])
        for key in history.keys
    ]
    codes = _codes(both)
    known, asked = codes[: len(entities)], codes[len(entities) :]
    return _places_of(known, asked, asked >= 0)


def _whole_number_codes(known: pa.ChunkedArray, asked: pa.ChunkedArray) -> Ints:
    numbers = np.asarray(asked.fill_null(0).to_numpy(), np.int64)
    return _places_of(np.asarray(known.to_numpy()), numbers, np.asarray(asked.is_valid()))


def _places_of(known: Ints, asked: Ints, valid: npt.NDArray[np.bool_]) -> Ints:
    """Where each of `asked` stands in `known`; -1 where it does not, or is not valid."""
    order, back = np.argsort(known), np.argsort(asked)  # sorted questions search neighbours
    found = np.empty_like(asked)
    found[back] = np.searchsorted(known, asked[back], sorter=order)
    found = order[np.minimum(found, len(known) - 1)]
    return np.where(valid & (known[found] == asked), found, -1).astype(np.int64)


def instants(column: pa.ChunkedArray) -> Ints:
    """Microseconds since 1970 of a timestamp column; naive means UTC. There must be no nulls."""
    micros = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return np.asarray(micros.to_numpy(), dtype=np.int64)


def codes_of(column: pa.ChunkedArray) -> Ints:
    """Equal values get equal codes and different ones different codes; a null gets 0."""
    encoded: Any = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    indices = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
    return np.asarray(indices, dtype=np.int64)


def _history_codes(columns: Sequence[pa.ChunkedArray]) -> Ints:
    """Whole numbers are their own codes: rows that are sorted by them are sorted by the code."""
    if len(columns) == 1 and pa.types.is_int64(columns[0].type):
        return np.asarray(columns[0].to_numpy(), np.int64)
    return _codes(columns)


def _codes(columns: Sequence[pa.ChunkedArray]) -> Ints:
    """Equal rows get equal codes and different rows different ones; a row with a null gets -1.

    Codes are made dense after each column, so that no number of columns overflows.
    """
    combined = np.zeros(len(columns[0]), np.int64)
    missing = np.zeros(len(combined), bool)
    for column in columns:
        missing |= np.asarray(column.is_null().to_numpy())
        part = codes_of(column)
        if len(columns) == 1:
            combined = part
            break
        pairs = combined * (int(part.max(initial=0)) + 1) + part
        combined = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
    return np.where(missing, -1, combined)


def _is_sorted(columns: Sequence[Ints]) -> bool:
    """Whether the rows rise lexicographically."""
    tied = np.ones(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        before, after = column[:-1], column[1:]
        if (tied & (after < before)).any():
            return False
        tied &= after == before
    return True
