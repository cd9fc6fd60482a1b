"""Vacuum: removes the files of table versions that nobody can ask for any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.errors import did_you_mean
from konveyer.core.wording import seconds
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.etl.pins import Pin, ReadPins
from konveyer.feature_store.etl.runs import (
    PutTable,
    WrittenTable,
    running_views,
    unfinished_tables,
    withdraw_tables,
    written_tables,
)
from konveyer.feature_store.offline.delta import DeltaOfflineStore, StoredTable
from konveyer.feature_store.offline.files import remove_files
from konveyer.feature_store.offline.table_version import OfflineTableUnreadable
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.registry.errors import FeatureViewNotFound
from konveyer.feature_store.registry.lookup import active_state, defined_views, space_of

Version = tuple[str, str]
# A writer that has not added to a file of its own for a day was killed.
_ABANDONED_AFTER_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptVersion:
    """A table version that stays, and the strongest reason why."""

    table_version: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableVacuum:
    """What happens to one table: `files` go, or all of it when `drop`.

    `skipped` says why nothing can be done now.
    """

    view: str
    version: str
    kept: tuple[KeptVersion, ...]
    files: tuple[Path, ...]
    size_bytes: int
    drop: bool = False
    skipped: str | None = None

    @property
    def changes(self) -> bool:
        return self.drop or bool(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the catalog says, in one reading."""

    at_us: int
    written: dict[Version, list[WrittenTable]]
    unfinished: dict[Version, list[PutTable]]
    running: set[Version]
    defined: set[Version]
    active: set[Version]
    pins: Sequence[Pin]
    changed_us: dict[str, int]

    def is_referred_to(self, key: Version) -> bool:
        return key in self.active or any(
            key in pin.views or any((ref.view, ref.version) == key for ref in pin.tables)
            for pin in self.pins
        )


def plan_vacuum(
    catalog: Catalog,
    actor: Actor,
    offline: DeltaOfflineStore,
    pins: ReadPins,
    *,
    views: Sequence[str] = (),
    keep_us: int,
) -> list[TableVacuum]:
    """What can go of the tables of `views`, or of all when there are none.

    Stays: what is readable, what a pin holds, what stopped being readable less than `keep_us` ago,
    because a reader may still be under way, and what a failed run may have put online, because the
    next one compares with it. The plan stays right while ETL runs and training
    sets are built: these only ever take up versions that it keeps, or newer ones.
    """
    actor.require(Permission.RUN_ETL)
    # The disk first: what is committed while the catalog is read is then not in the listing.
    found = offline.stored()
    with catalog.reading() as session:
        known = _known(session, pins)
    # Whatever else lies in the folder is somebody else's.
    tables = [table for table in found if (table.view, table.version) in known.defined]
    _check_names(views, {table.view for table in tables} | {view for view, _ in known.active})
    return [
        _plan(table, known, offline, keep_us)
        for table in tables
        if not views or table.view in views
    ]


def _known(session: Session, pins: ReadPins) -> _Known:
    changes = (
        select(audit.AuditRow.subject, func.max(audit.AuditRow.at_us))
        .where(audit.AuditRow.kind == Kind.VIEW)
        .where(audit.AuditRow.action.in_(["added", "changed", "removed"]))
        .group_by(audit.AuditRow.subject)
    )
    return _Known(
        at_us=now_us(),
        written=written_tables(session),
        unfinished=unfinished_tables(session),
        running=running_views(session),
        defined=defined_views(session),
        active=_active(session),
        pins=pins(session),
        changed_us=dict(session.execute(changes).all()),
    )


def _active(session: Session) -> set[Version]:
    versions = active_state(session).versions
    return {(name, version) for (kind, name), version in versions.items() if kind is Kind.VIEW}


def _check_names(wanted: Sequence[str], known: set[str]) -> None:
    for name in wanted:
        if name not in known:
            raise FeatureViewNotFound(
                f"Feature view '{name}' is not registered and has no table.",
                hint=did_you_mean(name, known, otherwise="konveyer features search"),
            )


def _plan(
    table: StoredTable, known: _Known, offline: DeltaOfflineStore, keep_us: int
) -> TableVacuum:
    key = (table.view, table.version)
    if key in known.running:
        return _skipped(table, (), "it is being computed; 'konveyer etl run' finishes a killed run")
    written = known.written.get(key, [])
    oldest_us = known.at_us - keep_us
    touched_us = max([known.changed_us.get(table.view, 0), *(one.since_us for one in written)])
    if not known.is_referred_to(key) and touched_us < oldest_us:
        return TableVacuum(
            view=table.view,
            version=table.version,
            kept=(),
            files=tuple(file.path for file in table.files),
            size_bytes=sum(file.size_bytes for file in table.files),
            drop=True,
        )
    kept = _kept(key, written, known, oldest_us)
    abandoned_us = min(oldest_us, known.at_us - _ABANDONED_AFTER_US)
    try:
        files = offline.unneeded(
            table, [one.table_version for one in kept], abandoned_us=abandoned_us
        )
    except OfflineTableUnreadable as error:
        return _skipped(table, kept, error.message)
    return TableVacuum(
        view=table.view,
        version=table.version,
        kept=kept,
        files=tuple(file.path for file in files),
        size_bytes=sum(file.size_bytes for file in files),
    )


def _kept(
    key: Version, written: list[WrittenTable], known: _Known, oldest_us: int
) -> tuple[KeptVersion, ...]:
    kept: dict[int, str] = {}
    for put in known.unfinished.get(key, []):
        kept[put.ref.table_version] = f"may be online in part, of the failed {put.run.run_id}"
    for one, following in pairwise(written):
        if following.since_us >= oldest_us:
            ago = seconds((known.at_us - following.since_us) / 1e6)
            kept[one.ref.table_version] = f"was readable until {ago} ago"
    for pin in known.pins:
        for ref in pin.tables:
            if (ref.view, ref.version) == key:
                kept[ref.table_version] = pin.holder
    if written:
        kept[written[-1].ref.table_version] = "readable"
    return tuple(KeptVersion(table_version=v, reason=reason) for v, reason in sorted(kept.items()))


def _skipped(table: StoredTable, kept: tuple[KeptVersion, ...], reason: str) -> TableVacuum:
    return TableVacuum(
        view=table.view, version=table.version, kept=kept, files=(), size_bytes=0, skipped=reason
    )


def vacuum(
    catalog: Catalog,
    actor: Actor,
    offline: DeltaOfflineStore,
    online: OnlineStore,
    pins: ReadPins,
    plan: Sequence[TableVacuum],
) -> None:
    """Do what the plan says, a table at a time. Killed in the middle, the next plan has the rest.

    The audit entry comes before the files go. A table to be dropped that somebody refers to again
    by now stays.
    """
    actor.require(Permission.RUN_ETL)
    for table in plan:
        if table.drop:
            _drop(catalog, actor, offline, online, pins, table)
        elif table.files:
            with catalog.transaction() as session:
                _record(session, actor, "vacuumed", table)
            remove_files(offline.folder_of(table.view, table.version), table.files)


def _drop(
    catalog: Catalog,
    actor: Actor,
    offline: DeltaOfflineStore,
    online: OnlineStore,
    pins: ReadPins,
    table: TableVacuum,
) -> None:
    key = (table.view, table.version)
    with catalog.transaction() as session:
        known = _known(session, pins)
        if known.is_referred_to(key) or key in known.running:
            return
        withdraw_tables(session, *key)
        _record(session, actor, "dropped", table)
    online.drop(space_of(*key))
    # The folder goes last: as long as it is there, the next plan drops the table again.
    offline.drop(*key)


def _record(session: Session, actor: Actor, action: str, table: TableVacuum) -> None:
    audit.record(
        session,
        actor.name,
        action,
        "view",
        table.view,
        version=table.version,
        files=len(table.files),
        size_bytes=table.size_bytes,
        kept=[one.table_version for one in table.kept],
    )
