"""Vacuum of pushed rows: files that the catalog does not list go, a while after they were left."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.feature_store.offline.files import remove_files
from konveyer.feature_store.sources.pushes import stored_segments

# The file of a push under way is not listed yet.
_ABANDONED_AFTER_US = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentVacuum:
    """Files of one pushed source in which no push is: of killed pushes, or merged into others."""

    source: str
    files: tuple[Path, ...]
    size_bytes: int


def plan_segments(
    catalog: Catalog, actor: Actor, folder: Path, *, keep_us: int
) -> list[SegmentVacuum]:
    """What can go of the folder of pushed rows: what was left `keep_us`, and a day, ago."""
    actor.require(Permission.RUN_ETL)
    # The disk first: what is listed while the catalog is read is then not found.
    found = {
        place.name: _left(place, keep_us) for place in sorted(folder.glob("*")) if place.is_dir()
    }
    with catalog.reading() as session:
        listed = _listed(session)
    return [
        SegmentVacuum(
            source=source,
            files=tuple(file for file in files if (source, file.name) not in listed),
            size_bytes=sum(s for file, s in files.items() if (source, file.name) not in listed),
        )
        for source, files in found.items()
        if any((source, file.name) not in listed for file in files)
    ]


def _left(place: Path, keep_us: int) -> dict[Path, int]:
    oldest_us = now_us() - max(keep_us, _ABANDONED_AFTER_US)
    found = {}
    for file in sorted(place.iterdir()):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue  # the draft of a push that has come to its end
        if status.st_mtime_ns // 1_000 < oldest_us:
            found[file] = status.st_size
    return found


def _listed(session: Session) -> set[tuple[str, str]]:
    return {
        (source, segment.name)
        for source, segments in stored_segments(session).items()
        for segment in segments
    }


def vacuum_segments(
    catalog: Catalog, actor: Actor, folder: Path, plan: list[SegmentVacuum]
) -> None:
    """Do what the plan says; the audit entry comes before the files go."""
    actor.require(Permission.RUN_ETL)
    for one in plan:
        with catalog.transaction() as session:
            audit.record(
                session,
                actor.name,
                "vacuumed",
                "source",
                one.source,
                files=len(one.files),
                size_bytes=one.size_bytes,
            )
        remove_files(folder / one.source, one.files)
