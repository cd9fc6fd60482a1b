"""Bringing a view's rows into the offline layout, and its newest values online."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.progress import Progress, unseen
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.engines.base import Engine, SortedRows
from konveyer.feature_store.etl.quality import check_values
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.errors import naming_view
from konveyer.feature_store.kernel.evaluate import evaluate, last_refresh
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME, History, history_of
from konveyer.feature_store.kernel.point_in_time import latest
from konveyer.feature_store.kernel.spine import Spine
from konveyer.feature_store.offline.bucket_writer import BucketWriter, NewFile
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.offline.layout import BUCKET, bucket_count, layout_sql
from konveyer.feature_store.offline.table_version import TableRef, TableVersion
from konveyer.feature_store.online.base import OnlineStore, Record
from konveyer.feature_store.online.codec import RecordCodec, encode_key
from konveyer.feature_store.registry.check import SourceForm, sources_attached
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import space_of
from konveyer.feature_store.registry.python_view import ComputedBuckets
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.sources.kind import Places

PUBLISHED_US = "_published_us"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An offline table version and how many rows it has."""

    ref: TableRef
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One bucket of what is published: join keys, features and each record's event time."""

    keys: pa.Table
    features: pa.Table
    event_us: "np.ndarray[tuple[int], np.dtype[np.int64]]"


def write_offline(
    state: RegistryState,
    name: str,
    version: str,
    compiled: CompiledView,
    *,
    found: Mapping[str, SourceForm],
    engine: Engine,
    offline: DeltaOfflineStore,
    places: Places,
    until_us: int,
    progress: Progress = unseen,
) -> Written:
    """Compute a view's rows up to `until_us` and write them as one new table version.

    `found` are the sources as they were when the view was applied. Whatever goes wrong names the
    view and leaves the table as it was.
    """
    attached = sources_attached(state, name, compiled, found, engine=engine, places=places)
    with naming_view(name), attached as session:
        counted = session.query(f"SELECT count(*) AS n FROM ({compiled.rows_sql}) AS all_rows")  # noqa: S608
        all_rows = counted.column("n")[0].as_py()
        buckets = bucket_count(all_rows)
        given = compiled.given or compiled.layout
        sql = layout_sql(given, compiled.rows_sql, buckets=buckets, until_us=until_us)
        rows = SortedRows(sql=sql, part=BUCKET, parts=buckets, order=given.order)

        def write(writer: BucketWriter) -> list[NewFile]:
            job = (
                writer
                if compiled.code is None
                else ComputedBuckets(view=name, compiled=compiled, until_us=until_us, write=writer)
            )

            def seen(so_far: int) -> None:
                progress("rows", so_far, all_rows)

            return [file for part in session.map_rows(rows, job, seen=seen) for file in part]

        schema = compiled.layout.schema
        ref, written = offline.write(name, version, schema, write, buckets=buckets)
    return Written(ref=ref, rows=written)


def snapshots(
    compiled: CompiledView,
    ref: TableRef,
    *,
    engine: Engine,
    offline: DeltaOfflineStore,
    as_of_us: int,
) -> Iterator[Snapshot]:
    """The values of every entity at the last refresh before `as_of_us`, a bucket at a time."""
    return engine.map(_Published(compiled, offline.open(ref), as_of_us), range(ref.buckets))


def checked(
    view: FeatureView,
    compiled: CompiledView,
    ref: TableRef,
    *,
    engine: Engine,
    offline: DeltaOfflineStore,
    as_of_us: int,
    most: int,
) -> Iterator[pa.Table]:
    """Check the values of every bucket, where the engine's workers are; of each a sample of what
    would be published, in all about `most` entities.

    Raises `CheckFailed` at the first bucket with values that the definition does not accept.
    """
    job = _Checked(view, compiled, offline.open(ref), as_of_us, max(1, most // ref.buckets))
    return engine.map(job, range(ref.buckets))


@dataclass(frozen=True, slots=True)
class _Checked:
    """The checked features of one bucket: of at most `most` entities, evenly taken."""

    view: FeatureView
    compiled: CompiledView
    table: TableVersion
    as_of_us: int
    most: int

    def __call__(self, bucket: int) -> pa.Table:
        rows = self.table.read(bucket).table
        with naming_view(self.view.name):
            values = snapshot_of(self.compiled, rows, self.as_of_us).features
        check_values(self.view, values if self.view.is_windowed else rows)
        if len(values) <= self.most:
            return values
        places = np.linspace(0, len(values) - 1, self.most).astype(np.int64)
        return values.take(pa.array(places))


@dataclass(frozen=True, slots=True)
class _Published:
    """What is published of one bucket."""

    compiled: CompiledView
    table: TableVersion
    as_of_us: int

    def __call__(self, bucket: int) -> Snapshot:
        with naming_view(self.table.ref.view):
            return snapshot_of(self.compiled, self.table.read(bucket).table, self.as_of_us)


def snapshot_of(compiled: CompiledView, rows: pa.Table, as_of_us: int) -> Snapshot:
    """The values of every entity in `rows`, in which the rows of an entity are all there."""
    history = history_of(rows, compiled.plan.keys)
    entities, event_us, at_us = _entities(compiled, history, as_of_us)
    spine = Spine(entities=entities, codes=np.arange(len(entities)), at_us=at_us)
    return Snapshot(
        keys=entities,
        features=evaluate(compiled.plan, history, spine),
        event_us=event_us,
    )


def _entities(
    compiled: CompiledView, history: History, as_of_us: int
) -> tuple[pa.Table, Ints, Ints]:
    """Who is published, the time of each record, and the moment at which it is evaluated."""
    plan, entities = compiled.plan, history.entities
    at_us = last_refresh(np.full(len(entities), as_of_us, np.int64), plan.refresh_us)
    if plan.windowed:
        return entities, at_us, at_us
    # An entity whose rows are all later, or past their TTL, has nothing to publish.
    winner = latest(
        history,
        np.arange(len(entities)),
        at_us,
        oldest_us=None if plan.ttl_us is None else at_us - plan.ttl_us,
        as_known=plan.as_known,
    )
    present = winner >= 0
    return entities.filter(pa.array(present)), history.event_us[winner[present]], at_us[present]


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table version, and the moment as of which it is or was published."""

    table: TableVersion
    as_of_us: int


def stale_keys(
    compiled: CompiledView, before: PublishedTable, now: PublishedTable, *, engine: Engine
) -> Iterator[pa.Table]:
    """The join keys whose record of `before` would outlive a publication of `now`, in parts.

    An entity that is there no more, or whose newest row was taken back: an online store keeps the
    record with the newer time. Keys and times alone are read, where the engine's workers are; no
    others than stale keys leave them.
    """
    parts = min(before.table.ref.buckets, now.table.ref.buckets)
    return engine.map(_StaleKeys(compiled, before, now, parts), range(parts))


@dataclass(frozen=True, slots=True)
class _StaleKeys:
    """Those of one of `parts`. Of two tables the one with more buckets has several for a part."""

    compiled: CompiledView
    before: PublishedTable
    now: PublishedTable
    parts: int

    def __call__(self, part: int) -> pa.Table:
        return _outliving(self._published(self.before, part), self._published(self.now, part))

    def _published(self, one: PublishedTable, part: int) -> pa.Table:
        buckets = range(part, one.table.ref.buckets, self.parts)
        return pa.concat_tables(self._keys_in(one, bucket) for bucket in buckets)

    def _keys_in(self, one: PublishedTable, bucket: int) -> pa.Table:
        keys = self.compiled.plan.keys
        created = [CREATED_TIME] if CREATED_TIME in one.table.schema.names else []
        rows = one.table.read(bucket, [*keys, EVENT_TIME, *created]).table
        entities, event_us, _ = _entities(self.compiled, history_of(rows, keys), one.as_of_us)
        return entities.append_column(PUBLISHED_US, pa.array(event_us))


def _outliving(before: pa.Table, now: pa.Table) -> pa.Table:
    keys = [name for name in before.column_names if name != PUBLISHED_US]
    both = before.join(now, keys, join_type="left outer", right_suffix="_now")
    after = both.column(f"{PUBLISHED_US}_now")
    older = pc.less(after, both.column(PUBLISHED_US))
    return both.filter(pc.or_kleene(pc.is_null(after), older)).select(keys)


def withdraw(name: str, version: str, keys: Iterable[bytes], store: OnlineStore) -> None:
    """Delete the records of these entities. Repeating it is harmless."""
    store.delete(space_of(name, version), keys)


def encoded_keys(keys: pa.Table) -> list[bytes]:
    columns = [keys.column(name).to_pylist() for name in keys.column_names]
    return [encode_key(values) for values in zip(*columns, strict=True)]


def publish(
    name: str,
    version: str,
    codec: RecordCodec,
    part: Snapshot,
    store: OnlineStore,
    *,
    outdated: Set[bytes] = frozenset(),
) -> Sequence[bytes]:
    """Put one bucket's values online; the keys that these are of. Repeating it is harmless.

    Records of `outdated` keys are replaced although they are newer. A reader sees the old one or
    the new one.
    """
    keys = encoded_keys(part.keys)
    values = codec.encode(part.features, part.event_us)
    records = [Record(key, value) for key, value in zip(keys, values, strict=True)]
    space = space_of(name, version)
    if replaced := [one for one in records if one.key in outdated]:
        store.put(space, replaced, even_older=True)
    store.put(space, records)
    return keys
