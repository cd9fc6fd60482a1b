"""Bringing a view's rows into the offline layout, and its newest values online."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from konveyer.feature_store.engines.base import Engine, JobFailed, SortedRows
from konveyer.feature_store.kernel.evaluate import evaluate, last_refresh
from konveyer.feature_store.kernel.history import EVENT_TIME, history_of, instants
from konveyer.feature_store.kernel.point_in_time import latest
from konveyer.feature_store.offline.delta import DeltaOfflineStore, TableRef, TableVersion
from konveyer.feature_store.offline.files import BucketWriter, NewFile
from konveyer.feature_store.offline.layout import BUCKET, bucket_count, layout_sql
from konveyer.feature_store.online.base import OnlineStore, Record
from konveyer.feature_store.online.codec import RecordCodec, encode_key
from konveyer.feature_store.registry.apply import attach_sources
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import space_of
from konveyer.feature_store.registry.state import RegistryState


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
    engine: Engine,
    offline: DeltaOfflineStore,
    root: Path,
    until_us: int,
) -> Written:
    """Compute a view's rows up to `until_us` and write them as one new table version."""
    attach_sources(state, name, engine, root)
    layout = compiled.layout
    counted = engine.query(f"SELECT count(*) AS n FROM ({compiled.rows_sql}) AS all_rows")  # noqa: S608
    buckets = bucket_count(counted.column("n")[0].as_py())
    sql = layout_sql(layout, compiled.rows_sql, buckets=buckets, until_us=until_us)
    rows = SortedRows(sql=sql, part=BUCKET, parts=buckets, order=layout.order)

    def write(writer: BucketWriter) -> list[NewFile]:
        return [file for part in engine.map_rows(rows, writer) for file in part]

    try:
        ref, written = offline.write(name, version, layout.schema, write, buckets=buckets)
    except JobFailed as error:
        error.message = f"Feature view '{name}': {error.message}"
        raise
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


@dataclass(frozen=True, slots=True)
class _Published:
    """What is published of one bucket."""

    compiled: CompiledView
    table: TableVersion
    as_of_us: int

    def __call__(self, bucket: int) -> Snapshot:
        return _snapshot(self.compiled, self.table.read(bucket).table, self.as_of_us)


def _snapshot(compiled: CompiledView, rows: pa.Table, as_of_us: int) -> Snapshot:
    plan = compiled.plan
    history = history_of(rows, plan.keys)
    entities = history.entities
    at_us = last_refresh(np.full(len(entities), as_of_us, np.int64), plan.refresh_us)
    features = evaluate(plan, history, entities, at_us)
    if plan.windowed:
        return Snapshot(keys=entities, features=features, event_us=at_us)
    # An entity whose rows are all later, or past their TTL, has nothing to publish.
    winner = latest(
        history,
        np.arange(len(entities)),
        at_us,
        oldest_us=None if plan.ttl_us is None else at_us - plan.ttl_us,
        as_known=plan.as_known,
    )
    present = pa.array(winner >= 0)
    event_us = instants(history.rows.column(EVENT_TIME))[winner[winner >= 0]]
    return Snapshot(
        keys=entities.filter(present), features=features.filter(present), event_us=event_us
    )


def publish(name: str, version: str, codec: RecordCodec, part: Snapshot, store: OnlineStore) -> int:
    """Put one bucket's values online; how many entities that were. Repeating it is harmless."""
    columns = [part.keys.column(key).to_pylist() for key in part.keys.column_names]
    keys = [encode_key(values) for values in zip(*columns, strict=True)]
    values = codec.encode(part.features, part.event_us)
    store.put(
        space_of(name, version),
        [Record(key, value) for key, value in zip(keys, values, strict=True)],
    )
    return len(keys)
