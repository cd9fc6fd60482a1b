"""Finding a training set that is kept, and reading what is kept of it."""

from collections.abc import Collection
from pathlib import Path

import msgspec
import pyarrow as pa
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.core.clock import format_us
from konveyer.core.errors import Conflict, NotFound, did_you_mean
from konveyer.feature_store.datamart.label_files import (
    LabelFileMissing,
    LabelFiles,
    LabelsUnreadable,
    labels_at,
)
from konveyer.feature_store.datamart.manifest import (
    DATA,
    TrainingSet,
    TrainingSetManifest,
)
from konveyer.feature_store.datamart.tables import TrainingSetRow


class TrainingSetNotFound(NotFound):
    code = "training_set_not_found"


class TrainingSetNotRebuildable(Conflict):
    """An entity that was forgotten was in it."""

    code = "training_set_not_rebuildable"


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
    check_whole(session, manifest.id)
    path = folder / manifest.id
    labels = _kept_rows(path)
    held = None if isinstance(labels, LabelFiles) else labels
    return TrainingSet(manifest=manifest, path=path, held=held)


def kept_labels(folder: Path, manifest: TrainingSetManifest) -> pa.Table | LabelFiles:
    """The label frame of a training set, from the rows that are kept of it under `folder`."""
    features = {column.name for column in manifest.service.columns}
    return _kept_rows(folder / manifest.id, leave_out=features)


def _kept_rows(path: Path, leave_out: Collection[str] = ()) -> pa.Table | LabelFiles:
    try:
        return labels_at(path / DATA, leave_out)
    except (LabelFileMissing, LabelsUnreadable) as error:
        raise TrainingSetNotFound(
            f"The rows of training set {path.name} are gone: {error.message}",
            hint=f"konveyer training-set rebuild {path.name} --labels FILE --output ROWS",
        ) from error


def check_whole(session: Session, training_set: str) -> None:
    kept = session.get(TrainingSetRow, training_set)
    if kept is not None and kept.altered_us is not None:
        raise TrainingSetNotRebuildable(
            f"Training set {training_set} cannot be built again: an entity in it was forgotten on "
            f"{format_us(kept.altered_us)}.",
            hint="its other rows are kept as they are; build a new one to train on",
        )
