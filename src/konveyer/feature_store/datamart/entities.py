"""A spine without labels: every known entity, again and again between two moments."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.errors import KonveyerError
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.history import EVENT_TIME

AT = "at"
_MOST_ROWS = 2**31


class EntitiesUnclear(KonveyerError):
    """No view of the service knows all of its join keys."""

    code = "entities_unclear"


class BadCadence(KonveyerError):
    """A start, an end and a step that give no moments."""

    code = "bad_cadence"


def cadence(start_us: int, end_us: int, every_us: int) -> Ints:
    """The moments from `start_us` to `end_us`, both included, `every_us` apart.

    >>> cadence(0, 10, 5).tolist()
    [0, 5, 10]
    """
    if every_us <= 0 or end_us < start_us:
        raise BadCadence(
            "The moments must step forward from the start to an end that is not before it.",
            hint="give --from, --to and a positive --every",
        )
    return np.arange(start_us, end_us + 1, every_us, dtype=np.int64)


def entities_at(
    views: tuple[PinnedView, ...], keys: tuple[ScalarColumn, ...], moments_us: Ints, engine: Engine
) -> pa.Table:
    """The join keys and `at`: at each moment every entity that had a row by then in some view.

    In the order of moments, then of keys.
    """
    full = [view for view in views if set(view.keys) == set(keys)]
    if not full:
        raise EntitiesUnclear(
            f"No view of the service has all of its join keys: {', '.join(k.name for k in keys)}.",
            hint="give a label frame with the combinations that you want",
        )
    names = [key.name for key in keys]
    wanted = [*names, "first_us"]  # an entity may be defined twice, with its keys in other orders
    parts = [
        part.select(wanted) for view in full for part in engine.map(_Firsts(view), _buckets(view))
    ]
    firsts = pa.concat_tables(parts).group_by(names, use_threads=False)
    known = firsts.aggregate([("first_us", "min")]).sort_by([(name, "ascending") for name in names])
    first_us = known.column("first_us_min").to_numpy()
    sizes = np.array([(first_us <= moment).sum() for moment in moments_us])
    if sizes.sum() > _MOST_ROWS:
        raise BadCadence(
            f"That would be {sizes.sum():,} rows.", hint="take fewer moments at a time"
        )
    rows = np.concatenate([np.flatnonzero(first_us <= moment) for moment in moments_us])
    at = pa.array(np.repeat(moments_us, sizes)).cast(ColumnType.TIMESTAMP.arrow)
    return known.select(names).take(pa.array(rows)).append_column(AT, at)


def _buckets(view: PinnedView) -> range:
    return range(view.table.ref.buckets)


class _Firsts:
    """The first event time of each entity in a bucket of a view."""

    def __init__(self, view: PinnedView) -> None:
        self._view = view

    def __call__(self, bucket: int) -> pa.Table:
        keys = list(self._view.plan.keys)
        rows = self._view.table.read(bucket, [*keys, EVENT_TIME]).table
        first_us = pc.cast(rows.column(EVENT_TIME), pa.int64())
        grouped = rows.select(keys).append_column("us", first_us).group_by(keys, use_threads=False)
        return grouped.aggregate([("us", "min")]).rename_columns([*keys, "first_us"])
