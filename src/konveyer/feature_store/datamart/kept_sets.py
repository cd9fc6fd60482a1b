"""The training sets that are kept: what each is pinned to, who needs it, and removing one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.errors import Conflict, did_you_mean
from konveyer.feature_store.datamart.kept_rows import TrainingSetNotFound
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.etl.pins import Pin, ReadPins
from konveyer.feature_store.offline.files import remove_folder
from konveyer.feature_store.offline.table_version import TableRef


class TrainingSetInUse(Conflict):
    """A release that is live or on its way was trained on it."""

    code = "training_set_in_use"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSet:
    """A training set; `used_by` are the releases that hold it.

    With `altered_us` an entity in it was forgotten then, and it cannot be built again.
    """

    id: str
    service: str
    person: str
    built_us: int
    rows: int
    tables: tuple[TableRef, ...]
    used_by: tuple[str, ...]
    altered_us: int | None


def list_training_sets(session: Session, releases: Sequence[Pin]) -> list[KeptSet]:
    """Newest first."""
    return [
        KeptSet(
            id=row.id,
            service=row.service,
            person=row.person,
            built_us=row.built_us,
            rows=row.rows,
            tables=_tables(row),
            used_by=_used_by(row.id, releases),
            altered_us=row.altered_us,
        )
        for row in session.scalars(select(TrainingSetRow).order_by(TrainingSetRow.built_us.desc()))
    ]


def pins_of_training_sets(session: Session) -> list[Pin]:
    """Each kept training set can be built again as long as its tables are there.

    One that cannot be built again anyway holds nothing.
    """
    whole = select(TrainingSetRow).where(TrainingSetRow.altered_us.is_(None))
    return [
        Pin(holder=f"training set {row.id}", training_set=None, tables=_tables(row))
        for row in session.scalars(whole.order_by(TrainingSetRow.id))
    ]


def remove_training_set(
    catalog: Catalog, actor: Actor, folder: Path, training_set: str, releases: ReadPins
) -> None:
    """Unpin its tables and remove its rows under `folder`; a model that learned from it stays.

    Raises `TrainingSetInUse` while one of `releases` holds it. Killed in the middle, it can be
    removed again; so can what a build left that was killed at its last step.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.transaction() as session:
        row = session.get(TrainingSetRow, training_set)
        if row is None and training_set not in _on_disk(folder):
            known = ids_of_training_sets(session)
            raise TrainingSetNotFound(
                f"There is no training set '{training_set}'.",
                hint=did_you_mean(training_set, known, otherwise="konveyer training-set list"),
            )
        used_by = _used_by(training_set, releases(session))
        if used_by:
            raise TrainingSetInUse(
                f"Training set {training_set} is used by {', '.join(used_by)}.",
                hint="remove it when no release that is live or on its way needs it",
            )
        if row is not None:
            session.delete(row)
            audit.record(
                session, actor.name, "removed", "training set", training_set, rows=row.rows
            )
    remove_folder(folder, folder / training_set)


def remove_unlisted(catalog: Catalog, actor: Actor, folder: Path) -> None:
    """Remove what builds and removals left under `folder` that were killed at their last step."""
    with catalog.transaction() as session:  # no build is at that step meanwhile
        for training_set in _on_disk(folder) - ids_of_training_sets(session):
            audit.record(session, actor.name, "removed", "training set", training_set)
            remove_folder(folder, folder / training_set)


def ids_of_training_sets(session: Session) -> set[str]:
    return set(session.scalars(select(TrainingSetRow.id)))


def _on_disk(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("set-*")}


def _used_by(training_set: str, releases: Sequence[Pin]) -> tuple[str, ...]:
    return tuple(pin.holder for pin in releases if pin.training_set == training_set)


def _tables(row: TrainingSetRow) -> tuple[TableRef, ...]:
    return msgspec.convert(row.manifest["tables"], tuple[TableRef, ...])
