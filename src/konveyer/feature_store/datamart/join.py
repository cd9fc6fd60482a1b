"""The join of features to a spine: a map over buckets, each read and evaluated by itself."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.progress import Progress, counted, unseen
from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.datamart import pieces
from konveyer.feature_store.datamart.pieces import Piece, is_heavy, pieces_of, sorted_spine
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.kernel.codes import Ints, distinct_unsorted
from konveyer.feature_store.kernel.errors import naming_view, naming_views
from konveyer.feature_store.kernel.evaluate import evaluate
from konveyer.feature_store.kernel.history import history_of
from konveyer.feature_store.kernel.spine import Spine, spine_of
from konveyer.feature_store.offline.layout import BUCKET, MOST_BUCKETS, bucket_numbers, bucket_sql
from konveyer.feature_store.offline.row_groups import Group

# Up to so many entities, their rows alone are read of a bucket.
_FEW_ENTITIES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRead:
    """What one bucket of one view cost, or a piece of it: rows and bytes (on disk) read, seconds
    taken.
    """

    view: str
    bucket: int
    rows: int
    size_bytes: int
    seconds: float


Watch = Callable[[BucketRead], None]


def join_features(
    spine: pa.Table,
    at_us: Ints,
    views: Sequence[PinnedView],
    *,
    engine: Engine,
    watch: Watch | None = None,
    progress: Progress = unseen,
) -> dict[str, pa.ChunkedArray]:
    """The features of `views` by name, one value for each spine row, in spine order.

    `spine` has the join keys of all views. `watch` is told of each bucket that was read, and
    `progress` of how many there are.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for keys, group in groupby(sorted(views, key=lambda v: v.plan.keys), key=lambda v: v.keys):
        own, same = spine.select([key.name for key in keys]), list(group)
        buckets = max(view.table.ref.buckets for view in same)
        places = places_by_bucket(own, keys, buckets, engine)
        for together in read_together(same, [len(rows) for rows in places], pieces.MOST_ROWS):
            columns |= _join(own, at_us, together, places, engine, watch, progress)
    return columns


def read_together(
    views: Sequence[PinnedView], labels: Sequence[int], most_rows: int
) -> list[tuple[PinnedView, ...]]:
    """Views with the same join keys: those that have no heavy bucket, and each other one alone.

    `labels` are the counts for each bucket.
    """
    hit = [(bucket, count) for bucket, count in enumerate(labels) if count]
    heavy = [
        view
        for view in views
        if any(is_heavy(view, bucket, count, most_rows) for bucket, count in hit)
    ]
    light = tuple(view for view in views if view not in heavy)
    return [*([light] if light else []), *((view,) for view in heavy)]


def _join(
    spine: pa.Table,
    at_us: Ints,
    views: tuple[PinnedView, ...],
    places: Sequence[Ints],
    engine: Engine,
    watch: Watch | None,
    progress: Progress,
) -> dict[str, pa.ChunkedArray]:
    """The features of views that are read together; `places` are the spine rows of each bucket."""
    parts = [
        (bucket, rows, piece)
        for bucket, mine in enumerate(places)
        if len(mine)
        for rows, piece in _pieces(views, bucket, spine, at_us, mine)
    ]
    if not parts:
        return {column: pa.chunked_array([[]]) for view in views for column in view.features}
    asked = (
        Asked(
            bucket=bucket,
            keys=spine.take(pa.array(rows)),
            at_us=at_us[rows],
            groups=None if piece is None else piece.groups,
        )
        for bucket, rows, piece in parts
    )
    found, orders = [], []
    names = [view.table.ref.view for view in views]
    with naming_views(names), closing(engine.map(JoinBucket(views), asked)) as joining:
        joined = counted(joining, progress, ", ".join(names), len(parts))
        for (_, rows, _), part in zip(parts, joined, strict=True):
            found.append(part.features)
            orders.append(rows[part.order])
            if watch is not None:
                for read in part.reads:
                    watch(read)
    return _reordered(pa.concat_tables(found), np.concatenate(orders))


def _pieces(
    views: tuple[PinnedView, ...], bucket: int, spine: pa.Table, at_us: Ints, rows: Ints
) -> list[tuple[Ints, Piece | None]]:
    """The spine rows of one bucket, in pieces where it is heavy."""
    if not is_heavy(views[0], bucket, len(rows), pieces.MOST_ROWS):
        return [(rows, None)]
    own, order = sorted_spine(spine.take(pa.array(rows)), at_us[rows])
    cut = pieces_of(views[0], bucket, own, pieces.MOST_ROWS)
    return [(rows[order[piece.start : piece.end]], piece) for piece in cut]


def _reordered(joined: pa.Table, order: Ints) -> dict[str, pa.ChunkedArray]:
    """The columns of `joined`, whose rows are those of the spine in `order`, in spine order."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    rows = pa.array(back)
    with ThreadPoolExecutor() as pool:
        columns = list(pool.map(lambda column: column.combine_chunks().take(rows), joined.columns))
    return dict(zip(joined.column_names, columns, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Spine rows (join keys and moments) of one bucket, in any order.

    `groups` are all that they need of it; None when they need the whole.
    """

    bucket: int
    keys: pa.Table
    at_us: Ints
    groups: frozenset[Group] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The features of one bucket; `order` says which spine row each is of. And what that read."""

    features: pa.Table
    order: Ints
    reads: tuple[BucketRead, ...]

    @property
    def in_order(self) -> pa.Table:
        """The features in the order in which they were asked for."""
        return pa.table(_reordered(self.features, self.order))


@dataclass(frozen=True, slots=True)
class JoinBucket:
    """Evaluates views with the same join keys for one bucket: a job that any engine runs."""

    views: tuple[PinnedView, ...]

    def __call__(self, asked: Asked) -> Joined:
        columns: dict[str, pa.ChunkedArray] = {}
        reads = []
        spine, order = spine_of(asked.keys, asked.at_us)
        for view in self.views:
            found, read = _evaluated(view, asked, spine)
            columns |= found
            reads.append(read)
        return Joined(features=pa.table(columns), order=order, reads=tuple(reads))


def _evaluated(
    view: PinnedView, asked: Asked, spine: Spine
) -> tuple[dict[str, pa.ChunkedArray], BucketRead]:
    started = time.perf_counter()
    only = _wanted_alone(spine)
    read = view.table.read(asked.bucket, view.columns, only, groups=asked.groups)
    with naming_view(view.table.ref.view):
        features = evaluate(view.plan, history_of(read.table, view.plan.keys), spine)
    cost = BucketRead(
        view=view.table.ref.view,
        bucket=asked.bucket,
        rows=len(read.table),
        size_bytes=read.size_bytes,
        seconds=time.perf_counter() - started,
    )
    return {name: features.column(feature) for name, feature in view.features.items()}, cost


def _wanted_alone(spine: Spine) -> pa.Array | None:
    """The values of the first join key when they are few."""
    if len(spine.entities) > _FEW_ENTITIES:
        return None
    return pc.unique(spine.entities.column(0))


def places_by_bucket(
    spine: pa.Table, keys: Sequence[ScalarColumn], buckets: int, engine: Engine
) -> list[Ints]:
    """The row numbers of the spine in each bucket, rising."""
    if buckets == 1:
        return [np.arange(len(spine), dtype=np.int64)]
    entities, codes = distinct_unsorted(spine)
    # NumPy sorts numbers of 16 bits by counting them.
    numbers = (_bucket_numbers(entities, keys, engine) & (buckets - 1)).astype(np.uint16)[codes]
    order = np.argsort(numbers, kind="stable")
    bounds = np.searchsorted(numbers[order], np.arange(buckets + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


def _bucket_numbers(entities: pa.Table, keys: Sequence[ScalarColumn], engine: Engine) -> Any:
    """Among the most buckets; many keys by the engine where that takes no time to begin."""
    if len(entities) <= _FEW_ENTITIES or not engine.answers_at_once:
        return bucket_numbers(keys, entities)
    sql = f"SELECT {bucket_sql(keys, MOST_BUCKETS)} AS {BUCKET} FROM entities"  # noqa: S608
    with engine.session() as session:
        session.attach_table("entities", entities)
        return session.query(sql).column(BUCKET).to_numpy()
