"""Letting an environment serve a release: the catalog first, then the document of its nodes."""

from konveyer.bundle.manifest import Manifest
from konveyer.catalog.session import Catalog
from konveyer.core.storage import Storage
from konveyer.execution.releases.records import (
    desired_of,
    release_row,
    set_live,
    withdraw_live,
)
from konveyer.execution.serving.desired import write_desired
from konveyer.feature_store.registry.usage import record_usage


def put_live(
    catalog: Catalog, storage: Storage, *, release: str, environment: str, manifest: Manifest
) -> None:
    """Let `environment` serve the release. Repeating it is harmless."""
    with catalog.transaction() as session:
        row = release_row(session, release)
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


def publish_desired(catalog: Catalog, storage: Storage, environment: str) -> None:
    """Write what the catalog says; also the repair after a kill between the two."""
    with catalog.reading() as session:
        desired = desired_of(session, environment)
    write_desired(storage, desired)
