"""The right to be forgotten: one entity leaves what is readable, and with `everywhere` the rest."""

from collections.abc import Callable, Set
from pathlib import Path

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.core.errors import Conflict
from konveyer.core.files import locked
from konveyer.core.ids import new_id
from konveyer.feature_store.datamart.held import Held, HeldSet, HeldTable
from konveyer.feature_store.datamart.kept_sets import ids_of_training_sets, remove_unlisted
from konveyer.feature_store.datamart.manifest import DRAFTS, data_files
from konveyer.feature_store.datamart.tables import TrainingSetRow
from konveyer.feature_store.etl.flow import EtlServices
from konveyer.feature_store.etl.forgotten import leave_out, note_done
from konveyer.feature_store.etl.runs import (
    RUNNING,
    readable_table,
    rewritten,
    running_views,
    unfinished_tables,
)
from konveyer.feature_store.offline.files import remove_files
from konveyer.feature_store.offline.identity import rewrite_without, rows_in_file, without
from konveyer.feature_store.offline.table_version import TableRef
from konveyer.feature_store.online.codec import encode_key
from konveyer.feature_store.push.forgotten_rows import remove_drafts, segments_with, take_out
from konveyer.feature_store.registry.lookup import space_of
from konveyer.feature_store.sources.segments import locked_pushes
from konveyer.feature_store.sources.staging import remove_left

_LOCK = ".forgetting.lock"


class BeingComputed(Conflict):
    """An ETL run that began earlier may still take the entity up."""

    code = "views_being_computed"


def forget(
    services: EtlServices,
    actor: Actor,
    training_sets: Path,
    find: Callable[[], Held],
    *,
    everywhere: bool,
) -> Held:
    """Remove the entity that `find` looks for; what was found and removed.

    First the catalog notes the digest of its key, so that no later run takes it up and no push
    brings it. Then it leaves the rows that were pushed, the online stores and the readable tables,
    whose other rows stay in the same files, or in the same order in a new one. With `everywhere` it
    also leaves older table versions, and the rows of training sets: those that had rows of it
    cannot be built again, all others still can. Each step may be repeated: after a kill, the same
    call finishes the work.
    """
    actor.require(Permission.FORGET_ENTITIES)
    # One at a time: what another one writes is in no table yet, and would be taken for old.
    with locked(training_sets / _LOCK):
        held = find()
        # A push that did not see the digest has ended by now, and what it wrote is found.
        with locked_pushes(services.pushed):
            with services.catalog.transaction() as session:
                leave_out(session, held.entity, held.digest, person=actor.name)
                audit.record(
                    session, actor.name, "forgot", "entity", held.entity, digest=held.digest
                )
            _take_out(services, actor, held)
        _check_nothing_runs(services, held)
        _leave_online(services, held)
        # An ETL run that ended since the plan was made had begun before it: look again.
        had = {table.ref for table in held.tables}
        while tables := find().tables:
            for table in tables:
                _rewrite(services, actor, held, table)
                had.add(table.ref)
        # What was readable until then may have been put online once more.
        _check_not_published(services, had)
        _leave_online(services, held)
        searched: set[str] | None = None
        if everywhere:
            remove_left(training_sets / DRAFTS)
            remove_left(services.places_until({}).staging)
            remove_unlisted(services.catalog, actor, training_sets)
            searched = _remove_older(services, actor, training_sets, find)
        while not _noted_done(services, actor, held, searched):
            # Since then a training set was recorded that may have been built of what was there.
            searched = _remove_older(services, actor, training_sets, find)
        return held


def _remove_older(
    services: EtlServices, actor: Actor, training_sets: Path, find: Callable[[], Held]
) -> set[str]:
    """Take it out of older table versions and training sets; the sets that were searched."""
    with services.catalog.reading() as session:
        searched = ids_of_training_sets(session)
    held = find()
    for one in held.training_sets:
        if one.rows:
            _alter(services, actor, training_sets, one)
    _clear(services, actor, held)
    return searched


def _noted_done(services: EtlServices, actor: Actor, held: Held, searched: set[str] | None) -> bool:
    """Note that the entity is gone; not while there are other training sets than `searched`."""
    with services.catalog.transaction() as session:
        if searched is not None and ids_of_training_sets(session) - searched:
            return False
        note_done(session, held.entity, held.digest)
        audit.record(
            session,
            actor.name,
            "removed",
            "entity",
            held.entity,
            digest=held.digest,
            everywhere=searched is not None,
        )
    return True


def _take_out(services: EtlServices, actor: Actor, held: Held) -> None:
    remove_drafts(services.pushed)
    for segment in segments_with(services.pushed, held.columns, held.key):
        with services.catalog.transaction() as session:
            audit.record(
                session, actor.name, "rewrote", "source", segment.source, rows=segment.rows
            )
        take_out(segment, held.columns, held.key)


def _check_nothing_runs(services: EtlServices, held: Held) -> None:
    with services.catalog.reading() as session:
        computing = sorted({view for view, v in running_views(session) if (view, v) in held.views})
    if computing:
        raise BeingComputed(
            f"{', '.join(computing)} began to be computed before this and may still have the "
            "entity; later runs leave it out.",
            hint="when that run has ended, give the same command again ('konveyer etl run' "
            "finishes a run that was killed)",
        )


def _check_not_published(services: EtlServices, tables: Set[TableRef]) -> None:
    with services.catalog.reading() as session:
        unfinished = unfinished_tables(session)
    views = {
        one.ref.view
        for of_view in unfinished.values()
        for one in of_view
        if one.run.status == RUNNING and one.ref in tables
    }
    if views:
        raise BeingComputed(
            f"{', '.join(sorted(views))} began to be published again before this and may still "
            "have the entity; later runs leave it out.",
            hint="when that run has ended, give the same command again ('konveyer etl run' "
            "finishes a run that was killed)",
        )


def _leave_online(services: EtlServices, held: Held) -> None:
    encoded = encode_key(list(held.key.values()))
    for view in held.views:
        services.online.delete(space_of(*view), [encoded])


def _rewrite(services: EtlServices, actor: Actor, held: Held, table: HeldTable) -> None:
    """A new table version without the entity, made readable unless ETL has made a newer one so."""
    ref, offline = table.ref, services.offline
    rows = without(offline.open(ref).read(table.bucket).table, held.key)
    new = offline.write_bucket(ref, table.bucket, rows)
    with services.catalog.transaction() as session:
        readable, run = readable_table(session, ref.view, ref.version)
        if readable != ref:
            return
        left = (run.rows or 0) - table.rows
        rewritten(session, new_id("forget"), run, new, person=actor.name, rows=left)
        audit.record(
            session,
            actor.name,
            "rewrote",
            "view",
            ref.view,
            version=ref.version,
            before=ref.table_version,
            after=new.table_version,
            rows=table.rows,
        )


def _alter(services: EtlServices, actor: Actor, folder: Path, one: HeldSet) -> None:
    """The catalog first: a training set that lost rows must never pass for whole."""
    with services.catalog.transaction() as session:
        row = session.get(TrainingSetRow, one.id)
        if row is not None:
            row.altered_us = row.altered_us or now_us()
            audit.record(session, actor.name, "altered", "training set", one.id, rows=one.rows)
    for file in data_files(folder / one.id):
        if rows_in_file(file, one.key):
            rewrite_without(file, one.key)


def _clear(services: EtlServices, actor: Actor, held: Held) -> None:
    """Files that a training set needs lose the entity's rows; the others go whole."""
    offline = services.offline
    for view, version in sorted({(file.view, file.version) for file in held.old_files}):
        files = [file for file in held.old_files if (file.view, file.version) == (view, version)]
        with services.catalog.transaction() as session:
            audit.record(
                session, actor.name, "cleared", "view", view, version=version, files=len(files)
            )
        for file in files:
            if file.pinned:
                offline.rewrite_file(view, version, file.path, held.key)
        unpinned = [file.path for file in files if not file.pinned]
        remove_files(offline.folder_of(view, version), unpinned)
