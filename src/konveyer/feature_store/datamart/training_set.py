"""Training sets: exactly one row for each label, with the features as they were at its time."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import format_us, now_us
from konveyer.core.errors import Conflict, NotFound, did_you_mean
from konveyer.core.files import folder_written_whole
from konveyer.core.ids import new_id
from konveyer.feature_store.datamart.digests import table_digest
from konveyer.feature_store.datamart.entities import entities_at
from konveyer.feature_store.datamart.explain import Tally, ViewCost, estimate
from konveyer.feature_store.datamart.join import Watch, join_features
from konveyer.feature_store.datamart.labels import Labels, check_labels
from konveyer.feature_store.datamart.on_demand import computed
from konveyer.feature_store.datamart.pinned import PinnedView, pin_views
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.offline.delta import DeltaOfflineStore, TableRef
from konveyer.feature_store.registry.errors import FeatureClash
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.feature_store.registry.usage import record_usage

DATA, MANIFEST = "data.parquet", "manifest.json"


class TrainingSetNotFound(NotFound):
    code = "training_set_not_found"


class TrainingSetDiffers(Conflict):
    """A training set was built again from its manifest and came out different."""

    code = "training_set_differs"


class TrainingSetNotRebuildable(Conflict):
    """An entity that was forgotten was in it."""

    code = "training_set_not_rebuildable"


class TrainingSetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the content depends on: from the same labels it gives the same content.

    `keys` are the label frame's columns that hold the join keys, in the order of the service's;
    `columns` maps those join keys that have another name there.
    """

    id: str
    service: ResolvedService
    tables: tuple[TableRef, ...]
    keys: tuple[str, ...]
    columns: dict[str, str]
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

    def to_polars(self) -> Any:
        """As a Polars frame, without a copy."""
        import polars as pl

        return pl.from_arrow(self.table)

    def to_pandas(self) -> Any:
        """As a pandas frame; needs pandas."""
        return self.table.to_pandas()


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
    columns: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> TrainingSet:
    """Join the features of `service` to `labels` and keep the result under `folder`.

    `columns` maps a join key to the column of `labels` where that has another name. The tables are
    pinned to the versions that are readable now. The folder of the training set appears whole,
    and before the catalog knows it.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
    checked = check_labels(labels, resolved, timestamp=timestamp, label=label, columns=columns)
    table = with_features(checked, resolved, views, engine=engine, watch=watch)
    training_set = new_id("set")
    path = folder / training_set
    with folder_written_whole(path) as draft, ThreadPoolExecutor() as pool:
        digests = pool.map(table_digest, (checked.table, table))
        texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
        pq.write_table(table, draft / DATA, use_dictionary=texts)
        labels_digest, result_digest = digests
        manifest = TrainingSetManifest(
            id=training_set,
            service=resolved,
            tables=tuple(view.table.ref for view in views),
            keys=checked.keys,
            columns=dict(columns or {}),
            timestamp=timestamp,
            label=label,
            rows=len(table),
            labels_digest=labels_digest,
            result_digest=result_digest,
            built_by=actor.name,
            built_us=now_us(),
        )
        (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    with catalog.transaction() as session:
        _record(session, actor, manifest)
    return TrainingSet(table=table, manifest=manifest, path=path)


def rebuild_training_set(
    catalog: Catalog,
    actor: Actor,
    engine: Engine,
    offline: DeltaOfflineStore,
    manifest: TrainingSetManifest,
    labels: pa.Table,
) -> pa.Table:
    """The training set of `manifest` once more, from the definitions and tables that it names.

    Raises `TrainingSetDiffers` when `labels` or the result are not those of the manifest, and
    `TrainingSetNotRebuildable` when an entity in it was forgotten everywhere.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        _check_whole(session, manifest.id)
        views = pin_views(session, offline, manifest.service, manifest.tables)
    checked = check_labels(
        labels,
        manifest.service,
        timestamp=manifest.timestamp,
        label=manifest.label,
        columns=manifest.columns,
    )
    _check_digest("labels", table_digest(checked.table), manifest.labels_digest, manifest.id)
    table = with_features(checked, manifest.service, views, engine=engine)
    _check_digest("features", table_digest(table), manifest.result_digest, manifest.id)
    return table


def _check_whole(session: Session, training_set: str) -> None:
    kept = session.get(TrainingSetRow, training_set)
    if kept is not None and kept.altered_us is not None:
        raise TrainingSetNotRebuildable(
            f"Training set {training_set} cannot be built again: an entity in it was forgotten on "
            f"{format_us(kept.altered_us)}.",
            hint="its other rows are kept as they are; build a new one to train on",
        )


def _check_digest(what: str, found: str, expected: str, training_set: str) -> None:
    if found != expected:
        raise TrainingSetDiffers(
            f"The {what} are not those of training set {training_set}.",
            hint="give the label frame that it was built from"
            if what == "labels"
            else "its tables were changed by something else than Konveyer",
        )


def explain_training_set(
    catalog: Catalog,
    actor: Actor,
    engine: Engine,
    offline: DeltaOfflineStore,
    *,
    service: str,
    labels: pa.Table,
    timestamp: str,
    columns: Mapping[str, str] | None = None,
    run: bool = True,
) -> list[ViewCost]:
    """What building this training set reads of each view; it is built to see, and not kept.

    Without `run` only the estimates are given, and no data is read.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
    checked = check_labels(labels, resolved, timestamp=timestamp, label=None, columns=columns)
    costs = [estimate(checked, view, engine) for view in views]
    if not run:
        return costs
    tally = Tally()
    with_features(checked, resolved, views, engine=engine, watch=tally)
    return [tally.of(cost) for cost in costs]


def entity_frame(
    catalog: Catalog,
    engine: Engine,
    offline: DeltaOfflineStore,
    *,
    service: str,
    moments_us: Ints,
) -> pa.Table:
    """A label frame without labels: each entity that the service knows, at each of the moments."""
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
    return entities_at(views, resolved.keys, moments_us, engine)


def with_features(
    labels: Labels,
    service: ResolvedService,
    views: tuple[PinnedView, ...],
    *,
    engine: Engine,
    watch: Watch | None = None,
) -> pa.Table:
    """The labels' columns and, in the order of the service, its features: a row for each label."""
    for column in service.columns:
        if column.name in labels.table.column_names:
            raise FeatureClash(
                f"The label frame has a column '{column.name}', as the service has.",
                hint="rename it in the label frame",
            )
    columns = join_features(labels.spine, labels.at_us, views, engine=engine, watch=watch)
    columns |= computed(service, columns, labels.table)
    table = labels.table
    for column in service.columns:
        table = table.append_column(column.name, columns[column.name].cast(column.dtype.arrow))
    return table.combine_chunks()


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


def kept_manifest(session: Session, training_set: str | None, service: str) -> TrainingSetManifest:
    """The manifest of a training set by its id; of the newest one of `service` when None."""
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
    return msgspec.convert(row.manifest, TrainingSetManifest)


def open_training_set(
    session: Session, folder: Path, training_set: str | None, service: str
) -> TrainingSet:
    """A training set under `folder` by its id; the newest one of `service` when None.

    Raises `TrainingSetNotRebuildable` when its rows are not those of its manifest any more.
    """
    manifest = kept_manifest(session, training_set, service)
    _check_whole(session, manifest.id)
    return TrainingSet(
        table=_kept_rows(folder, manifest, None), manifest=manifest, path=folder / manifest.id
    )


def kept_labels(folder: Path, manifest: TrainingSetManifest) -> pa.Table:
    """The label frame of a training set, from the rows that are kept of it under `folder`."""
    features = {column.name for column in manifest.service.columns}
    path = folder / manifest.id / DATA
    names = pq.read_schema(path).names if path.is_file() else []
    return _kept_rows(folder, manifest, [name for name in names if name not in features])


def _kept_rows(folder: Path, manifest: TrainingSetManifest, columns: list[str] | None) -> pa.Table:
    try:
        return pq.read_table(folder / manifest.id / DATA, columns=columns)
    except OSError as error:
        raise TrainingSetNotFound(
            f"The rows of training set {manifest.id} are gone: {error}",
            hint=f"konveyer training-set rebuild {manifest.id} --labels FILE",
        ) from error
