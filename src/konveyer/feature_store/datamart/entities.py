"""A spine without labels: every known entity, again and again between two moments."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core.errors import KonveyerError
from konveyer.core.files import file_written_whole
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME
from konveyer.feature_store.offline.layout import bucket_numbers
from konveyer.feature_store.registry.errors import FeatureClash

AT = "at"
_MOST_ROWS = 2**31
_MOST_MOMENTS = 2**24


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
    moments = (end_us - start_us) // every_us + 1
    if moments > _MOST_MOMENTS:
        raise BadCadence(
            f"That would be {moments:,} moments.",
            hint="take a longer --every, or build it in parts",
        )
    return np.arange(start_us, end_us + 1, every_us, dtype=np.int64)


def write_entities_at(
    views: tuple[PinnedView, ...],
    keys: tuple[ScalarColumn, ...],
    moments_us: Ints,
    *,
    engine: Engine,
    folder: Path,
) -> None:
    """The join keys and `at`: at each moment every entity that some view knew a row of by then.

    `folder` gets a Parquet file for each bucket, with its rows in the order of moments, then of
    keys. Every worker of the engine must see it.
    """
    if AT in {key.name for key in keys}:
        raise FeatureClash(
            f"A join key of the service is called '{AT}', as the column of moments is.",
            hint="give the rows yourself, with a timestamp of another name; or rename the join key",
        )
    full = tuple(view for view in views if set(view.keys) == set(keys))
    if not full:
        raise EntitiesUnclear(
            f"No view of the service has all of its join keys: {', '.join(k.name for k in keys)}.",
            hint="give a label frame with the combinations that you want",
        )
    buckets = max(view.table.ref.buckets for view in full)
    job = _WriteBucket(full, keys, moments_us, buckets, folder)
    with closing(engine.map(job, range(buckets))) as written:
        for _ in written:
            pass


@dataclass(frozen=True, slots=True)
class _WriteBucket:
    """Writes the entities of one of so many buckets, as the first view has them, at each moment."""

    views: tuple[PinnedView, ...]
    keys: tuple[ScalarColumn, ...]
    moments_us: Ints
    buckets: int
    folder: Path

    def __call__(self, bucket: int) -> None:
        names = [key.name for key in self.keys]
        firsts = pa.concat_tables([self._firsts(view, bucket) for view in self.views])
        found = firsts.group_by(names, use_threads=False).aggregate([("first_us", "min")])
        found = found.sort_by([(name, "ascending") for name in names])
        first_us = found.column("first_us_min").to_numpy()
        rows = len(found) * len(self.moments_us) * self.buckets
        if rows > _MOST_ROWS:
            raise BadCadence(
                f"That would be about {rows:,} rows.", hint="take fewer moments at a time"
            )
        schema = pa.schema([*found.select(names).schema, (AT, ColumnType.TIMESTAMP.arrow)])
        path = self.folder / f"{bucket:05}.parquet"
        with file_written_whole(path) as draft, pq.ParquetWriter(draft, schema) as writer:
            for moment in self.moments_us:
                known = found.select(names).filter(pa.array(first_us <= moment))
                at = pa.array(np.full(len(known), moment)).cast(ColumnType.TIMESTAMP.arrow)
                writer.write_table(known.append_column(AT, at))

    def _firsts(self, view: PinnedView, bucket: int) -> pa.Table:
        """When each entity that the view has in the bucket was first known."""
        hashed = self.views[0].keys
        if view.keys == hashed and view.table.ref.buckets == self.buckets:
            return self._read(view, bucket)
        # A view that names its keys in another order has them in other buckets.
        places = [bucket] if view.keys == hashed else range(view.table.ref.buckets)
        found = pa.concat_tables([self._read(view, place) for place in places])
        numbers = bucket_numbers(hashed, found) & (self.buckets - 1)
        return found.filter(pa.array(numbers == bucket))

    def _read(self, view: PinnedView, bucket: int) -> pa.Table:
        names = [key.name for key in self.keys]
        counts = view.plan.as_known and CREATED_TIME in view.table.schema.names
        times = [EVENT_TIME, CREATED_TIME] if counts else [EVENT_TIME]
        rows = view.table.read(bucket, [*names, *times]).table
        known_us = [pc.cast(rows.column(time), pa.int64()) for time in times]
        first_us = pc.max_element_wise(*known_us)
        grouped = (
            rows.select(names).append_column("us", first_us).group_by(names, use_threads=False)
        )
        firsts = grouped.aggregate([("us", "min")]).select([*names, "us_min"])
        return firsts.rename_columns([*names, "first_us"])
