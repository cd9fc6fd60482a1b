"""History: one bucket of a view's rows, sorted by entity and time, ready for searching."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from konveyer.feature_store.kernel.codes import LARGEST, Ints, distinct, row_codes

EVENT_TIME, CREATED_TIME = "event_time", "created_time"


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
    columns = [rows.column(key) for key in keys]
    codes = columns[0].to_numpy() if _are_codes(columns) else row_codes(columns)
    event_us = instants(rows.column(EVENT_TIME))
    created = CREATED_TIME in rows.column_names
    created_us = instants(rows.column(CREATED_TIME)) if created else None
    order_by = [codes, event_us] if created_us is None else [codes, event_us, created_us]
    if not _is_sorted(order_by):
        # By the keys themselves, as spines are: neighbours in one are neighbours in the other.
        codes = distinct(rows.select(list(keys)))[1]
        order = np.lexsort([codes, *order_by[1:]][::-1])
        rows, codes, event_us = rows.take(pa.array(order)), codes[order], event_us[order]
        created_us = created_us[order] if created_us is not None else None
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    bounds = [np.zeros(min(1, len(codes)), np.int64), changes, np.full(1, len(codes))]
    starts = np.concatenate(bounds).astype(np.int64)
    first_us = int(event_us.min()) if len(event_us) else 0
    # One more than the distance, so that "before the first" of an entity is nobody's last moment.
    span_us = int(event_us.max()) - first_us + 2 if len(event_us) else 2
    fits = span_us * len(starts) < LARGEST
    places = None
    if fits:
        # In place: to fill fresh memory takes longer than to add.
        places = np.repeat(np.arange(len(starts) - 1) * span_us - first_us, np.diff(starts))
        places += event_us
    return History(
        rows=rows,
        keys=tuple(keys),
        starts=starts,
        event_us=event_us,
        created_us=created_us,
        places=places,
        first_us=first_us,
        span_us=span_us,
    )


def codes_in(history: History, entities: pa.Table) -> Ints:
    """The history's code of each of `entities`; -1 for a null key, and for one without rows."""
    known = history.entities
    if not len(known):
        return np.full(len(entities), -1, np.int64)
    if _are_codes([known.column(0)] if len(history.keys) == 1 else []):
        asked = entities.column(history.keys[0])
        numbers = np.asarray(asked.fill_null(0).to_numpy(), np.int64)
        return _places_of(known.column(0).to_numpy(), numbers, np.asarray(asked.is_valid()))
    both = [
        pa.chunked_array([*known.column(key).chunks, *entities.column(key).chunks])
        for key in history.keys
    ]
    codes = row_codes(both)
    ours, asked_codes = codes[: len(known)], codes[len(known) :]
    order = np.argsort(ours)
    found = _places_of(ours[order], asked_codes, asked_codes >= 0)
    return np.where(found < 0, -1, order[found])


def _places_of(known: Ints, asked: Ints, valid: npt.NDArray[np.bool_]) -> Ints:
    """Where each of `asked` stands in the rising `known`; -1 where it does not, or is not valid."""
    found = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(valid & (known[found] == asked), found, -1)


def instants(column: pa.ChunkedArray) -> Ints:
    """Microseconds since 1970 of a timestamp column; naive means UTC. There must be no nulls."""
    micros = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
    return np.asarray(micros.to_numpy(), dtype=np.int64)


def _are_codes(keys: Sequence[pa.ChunkedArray]) -> bool:
    """One column of whole numbers is its own codes: rows sorted by it are sorted by the code."""
    return len(keys) == 1 and pa.types.is_int64(keys[0].type)


def _is_sorted(columns: Sequence[Ints]) -> bool:
    """Whether the rows rise lexicographically."""
    tied = np.ones(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        before, after = column[:-1], column[1:]
        if (tied & (after < before)).any():
            return False
        tied &= after == before
    return True
