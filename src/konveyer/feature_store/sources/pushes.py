"""The pushes that were accepted: each is one row, and that row is the push."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Index, case, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from konveyer.catalog.base import Base
from konveyer.feature_store.sources.segments import ListedSegment


class PushRow(Base):
    """`number` counts all pushes in the order of their commits, `arrived_us` never falls in it.

    `key` and `content` are digests, `segment` is the file that holds the rows. `online` names the
    views in which they landed, once they did.
    """

    __tablename__ = "pushes"
    __table_args__ = (
        Index("uq_pushes_key", "source", "key", unique=True),
        Index("ix_pushes_source", "source", "number"),
        Index("ix_pushes_not_online", "is_online"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    source: Mapped[str]
    key: Mapped[str]
    content: Mapped[str]
    segment: Mapped[str]
    rows: Mapped[int]
    arrived_us: Mapped[int]
    person: Mapped[str]
    is_online: Mapped[bool] = mapped_column(default=False)
    online: Mapped[list[Any] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPush:
    """The newest push of all sources; number 0 when there was none."""

    number: int
    arrived_us: int


def last_push(session: Session) -> LastPush:
    row = session.execute(
        select(PushRow.number, PushRow.arrived_us).order_by(PushRow.number.desc()).limit(1)
    ).first()
    return LastPush(number=row[0], arrived_us=row[1]) if row else LastPush(number=0, arrived_us=0)


def last_arrived(session: Session, until_us: int) -> int:
    """The number of the last push that had arrived by `until_us`."""
    query = select(func.max(PushRow.number)).where(PushRow.arrived_us <= until_us)
    return session.scalar(query) or 0


def pushed_to(session: Session, source: str) -> int:
    """The number of the last push to `source`; 0 when there was none."""
    return session.scalar(select(func.max(PushRow.number)).where(PushRow.source == source)) or 0


def find_push(session: Session, source: str, key: str) -> PushRow | None:
    return session.scalars(
        select(PushRow).where(PushRow.source == source, PushRow.key == key)
    ).one_or_none()


def not_online(session: Session) -> list[PushRow]:
    """Pushes that were accepted and did not land: their process died in between."""
    query = select(PushRow).where(PushRow.is_online.is_(False))
    return list(session.scalars(query.order_by(PushRow.number)))


def note_online(session: Session, number: int, views: Sequence[str]) -> None:
    session.execute(
        update(PushRow).where(PushRow.number == number).values(is_online=True, online=list(views))
    )


def listed_segments(
    session: Session, *, after: int = 0, until: int | None = None
) -> dict[str, tuple[ListedSegment, ...]]:
    """By source the segments with the pushes from number `after` + 1 to `until`, oldest first."""
    last = until if until is not None else last_push(session).number
    within = func.max(case((PushRow.number <= after, PushRow.arrived_us)))
    upto = func.max(case((PushRow.number <= last, PushRow.arrived_us)))
    query = (
        select(PushRow.source, PushRow.segment, within, upto, func.max(PushRow.number))
        .group_by(PushRow.source, PushRow.segment)
        .having(func.max(PushRow.number) > after, func.min(PushRow.number) <= last)
        .order_by(func.min(PushRow.number))
    )
    listed: dict[str, list[ListedSegment]] = {}
    for source, segment, after_us, until_us, newest in session.execute(query):
        one = ListedSegment(
            name=segment, after_us=after_us, until_us=until_us if newest > last else None
        )
        listed.setdefault(source, []).append(one)
    return {source: tuple(found) for source, found in listed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A segment, with the first and the last push in it, and when these arrived."""

    name: str
    rows: int
    first: int
    last: int
    first_us: int
    last_us: int


def stored_segments(session: Session) -> dict[str, tuple[StoredSegment, ...]]:
    """By source every segment that has a push, oldest first."""
    query = (
        select(
            PushRow.source,
            PushRow.segment,
            func.sum(PushRow.rows),
            func.min(PushRow.number),
            func.max(PushRow.number),
            func.min(PushRow.arrived_us),
            func.max(PushRow.arrived_us),
        )
        .group_by(PushRow.source, PushRow.segment)
        .order_by(func.min(PushRow.number))
    )
    found: dict[str, list[StoredSegment]] = {}
    for source, name, rows, first, last, first_us, last_us in session.execute(query):
        one = StoredSegment(
            name=name, rows=int(rows), first=first, last=last, first_us=first_us, last_us=last_us
        )
        found.setdefault(source, []).append(one)
    return {source: tuple(segments) for source, segments in found.items()}


def move_pushes(session: Session, source: str, segments: Sequence[str], to: str) -> None:
    """The rows of these segments are in the segment `to` from now on."""
    session.execute(
        update(PushRow)
        .where(PushRow.source == source, PushRow.segment.in_(segments))
        .values(segment=to)
    )
