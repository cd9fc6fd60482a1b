"""Compaction: many small segments become one, with the same rows in the same order."""

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from konveyer.catalog.session import Catalog
from konveyer.feature_store.offline import layout
from konveyer.feature_store.sources.pushes import SegmentRow, replace_segments, stored_segments
from konveyer.feature_store.sources.segments import write_segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Segments of one source that follow each other and are to become one file."""

    source: str
    segments: tuple[SegmentRow, ...]


def plan_compaction(session: Session) -> list[Group]:
    """Segments that are smaller than a bucket, with as many neighbours as fill one.

    Between two pushes of one moment no file goes on: a reader that wants one of them and not the
    other tells rows by their arrival.
    """
    return [
        Group(source=source, segments=tuple(group))
        for source, segments in stored_segments(session).items()
        for group in _groups(segments)
        if len(group) > 1
    ]


def _groups(segments: Sequence[SegmentRow]) -> Iterator[list[SegmentRow]]:
    group: list[SegmentRow] = []
    rows = 0
    for one in segments:
        full = rows + one.rows > layout.ROWS_PER_BUCKET
        if group and (full or one.first_us == group[-1].last_us):
            yield group
            group, rows = [], 0
        group.append(one)
        rows += one.rows
    yield group


def compact(catalog: Catalog, folder: Path) -> int:
    """How many segments became part of others. The caller holds the lock of pushes.

    One transaction lists the new file of a group for the old ones. Readers that have the old files
    listed go on with them until a vacuum.
    """
    with catalog.reading() as session:
        plan = plan_compaction(session)
    for group in plan:
        _merge(catalog, folder / group.source, group)
    return sum(len(group.segments) for group in plan)


def _merge(catalog: Catalog, folder: Path, group: Group) -> None:
    old = [folder / one.name for one in group.segments]
    tables = [pq.read_table(file, partitioning=None) for file in old]
    # Columns that came with a later definition are null in what was before.
    rows = pa.concat_tables(tables, promote_options="default")
    first, last = group.segments[0].first, group.segments[-1].last
    name = f"{first:012d}-{last:012d}-{secrets.token_hex(4)}.parquet"
    write_segment(folder / name, rows)
    with catalog.transaction() as session:
        replace_segments(session, group.segments, name)
    for file in old:
        os.utime(file)  # a vacuum counts from now on
