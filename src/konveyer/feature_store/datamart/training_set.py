"""Training sets: exactly one row for each label, with the features as they were at its time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.errors import NotFound, did_you_mean
from konveyer.core.files import folder_written_whole
from konveyer.core.ids import new_id
from konveyer.feature_store.datamart.labels import Labels, check_labels
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.evaluate import ViewPlan, evaluate
from konveyer.feature_store.kernel.history import CREATED_TIME, EVENT_TIME, history_of
from konveyer.feature_store.offline.delta import DeltaOfflineStore, TableRef
from konveyer.feature_store.offline.layout import BUCKET, bucket_sql
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.errors import FeatureClash
from konveyer.feature_store.registry.lookup import active_state, compiled_view, resolve_service
from konveyer.feature_store.registry.usage import record_usage

DATA, MANIFEST = "data.parquet", "manifest.json"


class TrainingSetNotFound(NotFound):
    code = "training_set_not_found"


class TrainingSetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the content depends on: the same manifest gives the same bytes."""

    id: str
    service: ResolvedService
    tables: tuple[TableRef, ...]
    keys: tuple[str, ...]
    timestamp: str
    label: str | None
    rows: int
    labels_digest: str
    result_digest: str
    built_by: str
    built_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """`table` has the label frame's columns, in its order, then the features of the service."""

    table: pa.Table
    manifest: TrainingSetManifest
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _PinnedView:
    ref: TableRef
    compiled: CompiledView
    features: tuple[str, ...]


def build_training_set(
    catalog: Catalog,
    actor: Actor,
    engine: Engine,
    offline: DeltaOfflineStore,
    *,
    service: str,
    labels: pa.Table,
    timestamp: str,
    label: str | None,
    folder: Path,
) -> TrainingSet:
    """Join the features of `service` to `labels` and keep the result under `folder`.

    The tables are pinned to the versions that are readable now. The folder of the training set
    appears whole, and before the catalog knows it.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = _pinned_views(session, resolved)
    checked = check_labels(labels, resolved.keys, timestamp=timestamp, label=label)
    table = join_features(checked, resolved, views, engine=engine, offline=offline)
    manifest = TrainingSetManifest(
        id=new_id("set"),
        service=resolved,
        tables=tuple(view.ref for view in views),
        keys=checked.keys,
        timestamp=timestamp,
        label=label,
        rows=len(table),
        labels_digest=table_digest(checked.table),
        result_digest=table_digest(table),
        built_by=actor.name,
        built_us=now_us(),
    )
    path = folder / manifest.id
    with folder_written_whole(path) as draft:
        pq.write_table(table, draft / DATA)
        (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    with catalog.transaction() as session:
        _record(session, actor, manifest)
    return TrainingSet(table=table, manifest=manifest, path=path)


def _record(session: Session, actor: Actor, manifest: TrainingSetManifest) -> None:
    session.add(
        TrainingSetRow(
            id=manifest.id,
            service=manifest.service.name,
            person=actor.name,
            built_us=manifest.built_us,
            rows=manifest.rows,
            manifest=msgspec.to_builtins(manifest),
        )
    )
    audit.record(session, actor.name, "built", "training set", manifest.id, rows=manifest.rows)
    record_usage(
        session, manifest.service, used_in="training set", subject=manifest.id, person=actor.name
    )


def open_training_set(
    session: Session, folder: Path, training_set: str | None, service: str
) -> TrainingSet:
    """A training set under `folder` by its id; the newest one of `service` when None."""
    query = select(TrainingSetRow).order_by(TrainingSetRow.built_us.desc())
    if training_set is None:
        row = session.scalars(query.where(TrainingSetRow.service == service)).first()
    else:
        row = session.get(TrainingSetRow, training_set)
    if row is None:
        known = session.scalars(select(TrainingSetRow.id))
        hint = f"konveyer training-set build {service} --labels FILE"
        raise TrainingSetNotFound(
            f"There is no training set '{training_set}'."
            if training_set
            else f"No training set of '{service}' was built yet.",
            hint=did_you_mean(training_set or "", known, otherwise=hint),
        )
    path = folder / row.id
    return TrainingSet(
        table=pq.read_table(path / DATA),
        manifest=msgspec.convert(row.manifest, TrainingSetManifest),
        path=path,
    )


def _pinned_views(session: Session, service: ResolvedService) -> list[_PinnedView]:
    return [
        _PinnedView(
            ref=readable_table(session, view.name, view.version)[0],
            compiled=compiled_view(session, view.name, view.version),
            features=tuple(f.feature for f in service.features if f.view == view.name),
        )
        for view in service.views
    ]


def join_features(
    labels: Labels,
    service: ResolvedService,
    views: Sequence[_PinnedView],
    *,
    engine: Engine,
    offline: DeltaOfflineStore,
) -> pa.Table:
    """The labels' columns and, in the order of the service, its features: a row for each label."""
    for column in service.columns:
        if column.name in labels.table.column_names:
            raise FeatureClash(
                f"The label frame has a column '{column.name}', as the service has.",
                hint="rename it in the label frame",
            )
    columns: dict[str, pa.ChunkedArray] = {}
    for view in views:
        joined = _join_view(labels, view, engine=engine, offline=offline)
        columns |= {name: joined.column(name) for name in joined.column_names}
    table = labels.table
    for column in service.columns:
        table = table.append_column(column.name, columns[column.name].cast(column.dtype.arrow))
    return table.combine_chunks()


def _join_view(
    labels: Labels, view: _PinnedView, *, engine: Engine, offline: DeltaOfflineStore
) -> pa.Table:
    """A map over buckets: read the view's bucket, evaluate it for the labels that fall into it."""
    plan = _narrowed(view)
    spine = labels.table.select(list(plan.keys))
    places = places_by_bucket(spine, view.ref.buckets, engine)

    def one(bucket: int) -> pa.Table:
        rows = offline.read(view.ref, bucket, _columns_read(view, plan))
        mine = places[bucket]
        at_us = labels.at_us[mine]
        return evaluate(plan, history_of(rows, plan.keys), spine.take(pa.array(mine)), at_us)

    parts = list(engine.map(one, range(view.ref.buckets)))
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(np.concatenate(places), kind="stable")
    return pa.concat_tables(parts).take(pa.array(back))


def places_by_bucket(
    spine: pa.Table, buckets: int, engine: Engine
) -> list["np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """The row numbers of the spine in each bucket."""
    if buckets == 1:
        return [np.arange(len(spine), dtype=np.int64)]
    numbered = spine.append_column("place", pa.array(np.arange(len(spine), dtype=np.int64)))
    bucket = bucket_sql(spine.column_names, buckets)
    with engine.session() as session:
        session.attach_table("spine", numbered)
        found = session.query(f"SELECT place, {bucket} AS {BUCKET} FROM spine").read_all()  # noqa: S608
    place, which = found["place"].to_numpy(), found[BUCKET].to_numpy()
    return [np.sort(place[which == number]) for number in range(buckets)]


def _narrowed(view: _PinnedView) -> ViewPlan:
    plan = view.compiled.plan
    wanted = set(view.features)
    return replace(
        plan,
        windowed=tuple(feature for feature in plan.windowed if feature.name in wanted),
        columns=tuple(name for name in plan.columns if name in wanted),
    )


def _columns_read(view: _PinnedView, plan: ViewPlan) -> list[str]:
    """Only the columns that the wanted features need."""
    created = [] if view.compiled.layout.created_time is None else [CREATED_TIME]
    inputs = [
        name
        for feature in plan.windowed
        for name in (feature.column, feature.filter_column)
        if name is not None
    ]
    return [*plan.keys, EVENT_TIME, *created, *dict.fromkeys([*inputs, *plan.columns])]


def table_digest(table: pa.Table) -> str:
    """Of the schema and the values, in order, however they are chunked."""
    hasher = hashlib.sha256(table.schema.to_string().encode())
    for column in table.combine_chunks().columns:
        hasher.update(np.asarray(pc.is_null(column)).tobytes())
        if pa.types.is_string(column.type):
            hasher.update("\0".join(column.fill_null("").to_pylist()).encode())
        elif pa.types.is_boolean(column.type):
            hasher.update(np.asarray(column.fill_null(False)).tobytes())
        else:
            plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            hasher.update(np.asarray(plain.fill_null(0)).tobytes())
    return f"sha256:{hasher.hexdigest()}"
