"""Training sets: exactly one row for each label, with the features as they were at its time."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.digests import table_digest
from konveyer.core.errors import Conflict
from konveyer.core.ids import new_id
from konveyer.core.progress import Progress, unseen
from konveyer.feature_store.datamart.entities import AT, write_entities_at
from konveyer.feature_store.datamart.explain import Tally, ViewCost, buckets_hit, estimate
from konveyer.feature_store.datamart.join import Watch, join_features
from konveyer.feature_store.datamart.kept_rows import check_whole
from konveyer.feature_store.datamart.label_files import LabelFiles, labels_at
from konveyer.feature_store.datamart.labels import check_labels, check_no_clash, key_columns
from konveyer.feature_store.datamart.large import Meaning, WrittenRows, write_large, write_rows
from konveyer.feature_store.datamart.manifest import (
    DATA,
    DRAFTS,
    MANIFEST,
    TrainingSet,
    TrainingSetManifest,
    written_below,
)
from konveyer.feature_store.datamart.on_demand import with_service_columns
from konveyer.feature_store.datamart.pinned import pin_views
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.forgotten import forgettings
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.feature_store.registry.usage import record_usage
from konveyer.feature_store.sources.staging import staging_folder


class ForgottenMeanwhile(Conflict):
    """What was read may have rows of an entity that is to be forgotten."""

    code = "entity_forgotten_meanwhile"


class TrainingSetDiffers(Conflict):
    """A training set was built again from its manifest and came out different."""

    code = "training_set_differs"


def build_training_set(
    catalog: Catalog,
    actor: Actor,
    engine: Engine,
    offline: DeltaOfflineStore,
    *,
    service: str,
    labels: pa.Table | LabelFiles,
    timestamp: str,
    label: str | None,
    folder: Path,
    columns: Mapping[str, str] | None = None,
    watch: Watch | None = None,
    progress: Progress = unseen,
) -> TrainingSet:
    """Join the features of `service` to `labels` and keep the result under `folder`.

    `columns` maps a join key to the column of `labels` where that has another name. The tables are
    pinned to the versions that are readable now. The folder of the training set appears whole,
    while the catalog takes it up. Rows whose labels stay in files stay in files too.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
        forgotten = forgettings(session)
    meaning = Meaning(
        service=resolved, timestamp=timestamp, label=label, columns=dict(columns or {})
    )
    set_id = new_id("set")
    with written_below(folder), _folder_for_now(folder) as place:
        draft = place / set_id
        draft.mkdir()
        held, written = _joined(
            labels, meaning, views, engine, draft, keep=True, watch=watch, progress=progress
        )
        manifest = TrainingSetManifest(
            id=set_id,
            service=resolved,
            tables=tuple(view.table.ref for view in views),
            keys=tuple(key_columns(resolved, columns).values()),
            columns=dict(columns or {}),
            timestamp=timestamp,
            label=label,
            rows=written.rows,
            labels_digest=written.labels_digest,
            result_digest=written.result_digest,
            built_by=actor.name,
            built_us=now_us(),
        )
        (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        with catalog.transaction() as session:
            if forgettings(session) != forgotten:
                raise ForgottenMeanwhile(
                    "An entity was forgotten while the training set was built, and may be in it.",
                    hint="build it again; nothing was kept",
                )
            _record(session, actor, manifest)
            # Last: whoever may write to the catalog finds no folder that is about to be recorded.
            draft.rename(folder / set_id)
    return TrainingSet(manifest=manifest, path=folder / set_id, held=held)


def _joined(
    labels: pa.Table | LabelFiles,
    meaning: Meaning,
    views: tuple[PinnedView, ...],
    engine: Engine,
    folder: Path,
    *,
    keep: bool = False,
    accept: Callable[[str], None] | None = None,
    watch: Watch | None = None,
    progress: Progress = unseen,
) -> tuple[pa.Table | None, WrittenRows]:
    """A row for each label: held, or in the folder `DATA` below `folder`.

    Rows that are held are in a file of that name too with `keep`.
    `accept` is asked about the digest of the labels before anything is joined.
    """
    match labels:
        case LabelFiles():
            return None, write_large(
                labels,
                meaning,
                views,
                engine=engine,
                folder=folder / DATA,
                accept=accept,
                watch=watch,
                progress=progress,
            )
        case _:
            file = folder / DATA if keep else None
            return _joined_at_once(labels, meaning, views, engine, file, accept, watch, progress)


def _joined_at_once(
    labels: pa.Table,
    meaning: Meaning,
    views: tuple[PinnedView, ...],
    engine: Engine,
    file: Path | None,
    accept: Callable[[str], None] | None,
    watch: Watch | None,
    progress: Progress,
) -> tuple[pa.Table, WrittenRows]:
    service = meaning.service
    checked = check_labels(
        labels,
        service,
        timestamp=meaning.timestamp,
        label=meaning.label,
        columns=meaning.columns,
    )
    labels_digest = table_digest(checked.table)
    if accept is not None:
        accept(labels_digest)
    check_no_clash(checked.table.column_names, service)
    joined = join_features(
        checked.spine, checked.at_us, views, engine=engine, watch=watch, progress=progress
    )
    table = with_service_columns(checked.table, joined, service)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(table_digest, table)
        if file is not None:
            write_rows(table, file)
    return table, WrittenRows(
        rows=len(table), labels_digest=labels_digest, result_digest=digest.result()
    )


@contextmanager
def rebuild_training_set(
    catalog: Catalog,
    actor: Actor,
    engine: Engine,
    offline: DeltaOfflineStore,
    manifest: TrainingSetManifest,
    labels: pa.Table | LabelFiles,
    *,
    folder: Path,
    progress: Progress = unseen,
) -> Iterator[TrainingSet]:
    """The training set of `manifest` once more, from the definitions and tables that it names.

    What is not held is in a folder below `folder`, which is gone when the block ends.

    Raises `TrainingSetDiffers` when `labels` or the result are not those of the manifest, and
    `TrainingSetNotRebuildable` when an entity in it was forgotten everywhere.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        check_whole(session, manifest.id)
        views = pin_views(session, offline, manifest.service, manifest.tables)
    meaning = Meaning(
        service=manifest.service,
        timestamp=manifest.timestamp,
        label=manifest.label,
        columns=manifest.columns,
    )

    def accept(labels_digest: str) -> None:
        _check_digest("labels", labels_digest, manifest.labels_digest, manifest.id)

    with ExitStack() as stack:
        with written_below(folder):  # and not around what is done with it
            draft = stack.enter_context(_folder_for_now(folder))
            held, written = _joined(
                labels, meaning, views, engine, draft, accept=accept, progress=progress
            )
        _check_digest("features", written.result_digest, manifest.result_digest, manifest.id)
        yield TrainingSet(manifest=manifest, path=draft, held=held)


@contextmanager
def _folder_for_now(folder: Path) -> Iterator[Path]:
    """A new folder below `folder`, where all workers see it. Those of killed builds are removed."""
    with staging_folder(folder / DRAFTS) as place:
        yield place


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
    labels: pa.Table | LabelFiles,
    timestamp: str,
    folder: Path,
    columns: Mapping[str, str] | None = None,
    run: bool = True,
) -> list[ViewCost]:
    """What building this training set reads of each view; it is built to see, and not kept.

    Without `run` only the estimates are given, and no feature is read. Labels that stay in files
    are taken to fall into all buckets.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
    meaning = Meaning(
        service=resolved, timestamp=timestamp, label=None, columns=dict(columns or {})
    )
    match labels:
        case LabelFiles():
            costs = [estimate(view, range(view.table.ref.buckets)) for view in views]
        case _:
            checked = check_labels(
                labels, resolved, timestamp=timestamp, label=None, columns=columns
            )
            costs = [estimate(view, buckets_hit(checked, view, engine)) for view in views]
    if not run:
        return costs
    tally = Tally()
    with written_below(folder), _folder_for_now(folder) as draft:
        _joined(labels, meaning, views, engine, draft, watch=tally)
    return [tally.of(cost) for cost in costs]


@contextmanager
def entity_frame(
    catalog: Catalog,
    engine: Engine,
    offline: DeltaOfflineStore,
    *,
    service: str,
    moments_us: Ints,
    staging: Path,
) -> Iterator[pa.Table | LabelFiles]:
    """A label frame without labels, for the block: each entity that the service knows, at each of
    the moments.

    In the order of moments, then of keys; one that stays in files so bucket by bucket.
    """
    with catalog.reading() as session:
        resolved = resolve_service(session, active_state(session), service)
        views = pin_views(session, offline, resolved)
    with ExitStack() as stack:
        with written_below(staging, "The label frame"):
            folder = stack.enter_context(staging_folder(staging))
            write_entities_at(views, resolved.keys, moments_us, engine=engine, folder=folder)
        frame = labels_at(folder)
        match frame:
            case LabelFiles():
                yield frame
            case _:
                order = [AT, *(key.name for key in resolved.keys)]
                yield frame.sort_by([(name, "ascending") for name in order])


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
