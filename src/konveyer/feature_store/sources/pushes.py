"""The pushes that were accepted, each of them one row, and the segments that hold their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Index, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from konveyer.catalog.base import Base
from konveyer.feature_store.sources.segments import ListedSegment


class PushRow(Base):
    """`number` counts all pushes in the order of their commits, `arrived_us` never falls in it.

    `key` and `content` are digests. `online` names the views in which the rows landed, once they
    did.
    """

    __tablename__ = "pushes"
    __table_args__ = (
        Index("uq_pushes_key", "source", "key", unique=True),
        Index("ix_pushes_not_online", "is_online"),
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    source: Mapped[str]
    key: Mapped[str]
    content: Mapped[str]
    rows: Mapped[int]
    arrived_us: Mapped[int]
    person: Mapped[str]
    is_online: Mapped[bool] = mapped_column(default=False)
    online: Mapped[list[Any] | None]


class SegmentRow(Base):
    """A file with the rows of all pushes to `source` from number `first` to `last`.

    `first_us` and `last_us` are the arrivals of these two. Pushes are in one segment each.
    """

    __tablename__ = "segments"

    source: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int]
    name: Mapped[str]
    rows: Mapped[int]
    first_us: Mapped[int]
    last_us: Mapped[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPush:
    """The newest push of all sources; number 0 when there was none."""

    number: int
    arrived_us: int


def last_push(session: Session) -> LastPush:
    query = select(PushRow.number, PushRow.arrived_us).order_by(PushRow.number.desc())
    row = session.execute(query.limit(1)).first()
    return LastPush(number=row[0], arrived_us=row[1]) if row else LastPush(number=0, arrived_us=0)


def last_arrived(session: Session, until_us: int) -> int:
    """The number of the last push that had arrived by `until_us`; 0 when none had."""
    query = select(PushRow.number).where(PushRow.arrived_us <= until_us)
    return session.scalar(query.order_by(PushRow.number.desc()).limit(1)) or 0


def find_push(session: Session, source: str, key: str) -> PushRow | None:
    return session.scalars(
        select(PushRow).where(PushRow.source == source, PushRow.key == key)
    ).one_or_none()


def not_online(session: Session) -> list[PushRow]:
    """Pushes that were accepted and did not land: their process died in between, or a run of ETL
    undid them online and could not put them back.
    """
    query = select(PushRow).where(PushRow.is_online.is_(False))
    return list(session.scalars(query.order_by(PushRow.number)))


def note_online(session: Session, number: int, views: Sequence[str]) -> None:
    session.execute(
        update(PushRow).where(PushRow.number == number).values(is_online=True, online=list(views))
    )


def note_not_online(session: Session, sources: Sequence[str], *, after: int) -> None:
    """Note that pushes to `sources` after number `after` are to land again."""
    later = update(PushRow).where(PushRow.number > after, PushRow.source.in_(sources))
    session.execute(later.values(is_online=False))


def listed_segments(
    session: Session, *, after: int = 0, until: int | None = None
) -> dict[str, tuple[ListedSegment, ...]]:
    """By source the segments with the pushes from number `after` + 1 to `until`, oldest first."""
    last = until if until is not None else last_push(session).number
    query = select(SegmentRow).where(SegmentRow.last > after, SegmentRow.first <= last)
    listed: dict[str, list[ListedSegment]] = {}
    for row in session.scalars(query.order_by(SegmentRow.first)):
        one = ListedSegment(
            name=row.name,
            after_us=_arrival(session, row.source, after) if row.first <= after else None,
            until_us=_arrival(session, row.source, last) if row.last > last else None,
        )
        listed.setdefault(row.source, []).append(one)
    return {source: tuple(found) for source, found in listed.items()}


def _arrival(session: Session, source: str, number: int) -> int:
    """When the last push to `source` with a number up to `number` arrived."""
    query = select(PushRow.arrived_us).where(PushRow.source == source, PushRow.number <= number)
    return session.scalars(query.order_by(PushRow.number.desc()).limit(1)).one()


def stored_segments(session: Session) -> dict[str, list[SegmentRow]]:
    """By source every segment that has a push, oldest first."""
    found: dict[str, list[SegmentRow]] = {}
    for row in session.scalars(select(SegmentRow).order_by(SegmentRow.first)):
        found.setdefault(row.source, []).append(row)
    return found


def replace_segments(session: Session, old: Sequence[SegmentRow], name: str) -> None:
    """What these segments of one source hold is in the file `name` from now on."""
    first, last = old[0], old[-1]
    session.execute(
        delete(SegmentRow).where(
            SegmentRow.source == first.source, SegmentRow.first.between(first.first, last.first)
        )
    )
    session.add(
        SegmentRow(
            source=first.source,
            first=first.first,
            last=last.last,
            name=name,
            rows=sum(one.rows for one in old),
            first_us=first.first_us,
            last_us=last.last_us,
        )
    )
