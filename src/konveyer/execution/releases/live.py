"""Letting an environment serve a release: the catalog first, then the document of its nodes."""

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.manifest import Manifest
from konveyer.bundle.store import Bundle
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.storage import Storage
from konveyer.execution.releases.environments import DEV, PROD, TEST
from konveyer.execution.releases.machine import ENDS, Action, State, WrongState
from konveyer.execution.releases.records import (
    desired_of,
    release_row,
    set_live,
    set_tried,
    withdraw_live,
)
from konveyer.execution.releases.sides import end_sides
from konveyer.execution.releases.tables import ReleaseRow
from konveyer.execution.releases.transitions import move
from konveyer.execution.serving.desired import is_told, read_desired, write_desired
from konveyer.feature_store.registry.usage import record_usage


def put_live(
    catalog: Catalog, storage: Storage, *, release: str, environment: str, manifest: Manifest
) -> None:
    """Let `environment` serve the release. Repeating it is harmless.

    A gate that has not seen yet that its release has ended brings it nowhere.
    """
    with catalog.transaction() as session:
        row = release_row(session, release)
        if row.state in ENDS:
            raise WrongState(
                f"Release {row.id} is in '{row.state}': {environment} does not serve it any more.",
                hint=f"konveyer release show {row.id}",
            )
        if environment == PROD:
            end_sides(session, release)  # what answers for all has no share
        if set_live(session, environment, row):
            record_usage(
                session,
                manifest.service,
                used_in=f"{manifest.application} in {environment}",
                subject=release,
                person=row.author,
            )
    publish_desired(catalog, storage, environment)


def take_back(catalog: Catalog, storage: Storage, *, release: str, environment: str) -> None:
    """Let `environment` serve the live release, not this one. Repeating it is harmless."""
    with catalog.transaction() as session:
        withdraw_live(session, environment, release_row(session, release))
    publish_desired(catalog, storage, environment)


def try_out(catalog: Catalog, storage: Storage, actor: Actor, bundle: Bundle) -> None:
    """Let the dev environment serve a bundle that nobody has reviewed yet."""
    actor.require(Permission.SUBMIT_RELEASE)
    with catalog.transaction() as session:
        set_tried(session, DEV, bundle)
        url = f"{bundle.manifest.application}/v{bundle.manifest.api_version}"
        audit.record(session, actor.name, "tried", "bundle", bundle.digest, url=url)
    publish_desired(catalog, storage, DEV)


def publish_desired(catalog: Catalog, storage: Storage, environment: str) -> None:
    """Write what the catalog says; also the repair after a kill between the two.

    Whoever writes last looks at the catalog once more, so that of two who publish at the same time
    none can leave what the other has replaced.
    """
    written = None
    while True:
        with catalog.reading() as session:
            desired = desired_of(session, environment)
        if desired == written:
            return
        write_desired(storage, desired)
        written = desired


def publish_end(catalog: Catalog, storage: Storage) -> None:
    """Let nodes know that a release has ended, wherever one of them may have had it."""
    for environment in (TEST, PROD):
        publish_desired(catalog, storage, environment)


def repair_desired(catalog: Catalog, storage: Storage, environment: str) -> bool:
    """Write the document when it is not what the catalog says; whether it was not.

    Storage may have been down when it should have been written, or have lost it since.
    """
    with catalog.reading() as session:
        desired = desired_of(session, environment)
    try:
        if is_told(storage, environment) and read_desired(storage, environment) == desired:
            return False
    except msgspec.MsgspecError:
        pass  # it cannot be read: that is repaired too
    publish_desired(catalog, storage, environment)
    return True


def retire_others(session: Session, row: ReleaseRow, person: str) -> None:
    """What was live before `row` is not any more."""
    others = select(ReleaseRow).where(
        ReleaseRow.application == row.application,
        ReleaseRow.api_version == row.api_version,
        ReleaseRow.state == State.LIVE,
        ReleaseRow.id != row.id,
    )
    for other in session.scalars(others):
        move(session, other, Action.RETIRE, person, by_release=row.id)
