"""Leases: one holder at a time for a name, freed when the holder ends, dies or goes silent."""

import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from konveyer.catalog.base import Base
from konveyer.catalog.session import Catalog
from konveyer.core.clock import format_us, now_us
from konveyer.core.errors import Conflict
from konveyer.core.processes import is_alive, mark_of

TTL_S = 15.0
RENEW_EVERY_S = 5.0
# How a process ends that has lost its lease, so that a supervisor starts it again.
_LOST = 1
# Stands between the two parts of an owner.
_OF = "@"
_log = logging.getLogger(__name__)


class LeaseRow(Base):
    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    # A random part, and the mark of the process.
    owner: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    purpose: Mapped[str]
    taken_us: Mapped[int]
    expires_us: Mapped[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease: a process, what it does, and since when."""

    host: str
    pid: int
    purpose: str
    taken_us: int


class LeaseHeld(Conflict):
    """Another process holds the workspace."""

    code = "workspace_held"


def holder_of(session: Session, name: str) -> Holder | None:
    """The living holder of `name`; a dead process on this host or a lapsed lease holds nothing.

    A process that lives on this host holds what it could not renew, as on a machine that slept.
    """
    row = session.get(LeaseRow, name)
    if row is None:
        return None
    is_here = row.host == socket.gethostname()
    if is_here and not is_alive(row.pid):
        return None
    is_surely_it = is_here and row.owner.partition(_OF)[2] == mark_of(row.pid)
    if row.expires_us <= now_us() and not is_surely_it:
        return None
    return Holder(host=row.host, pid=row.pid, purpose=row.purpose, taken_us=row.taken_us)


@contextmanager
def lease(catalog: Catalog, name: str, *, purpose: str) -> Iterator[None]:
    """Hold `name` for the block; raises `LeaseHeld` at once when another process holds it.

    A thread renews it every few seconds. A holder that was killed is replaced at once by a
    process on the same host, and after `TTL_S` by one elsewhere. A process that finds that another
    one has replaced it ends, since both would do the same work.
    """
    owner = f"{secrets.token_hex(8)}{_OF}{mark_of(os.getpid()) or ''}"
    try:
        _take(catalog, name, owner, purpose)
    except IntegrityError:  # another one took it in the same moment
        with catalog.reading() as session:
            refuse_if_held(session, name)
        raise
    ended = threading.Event()
    renewal = threading.Thread(
        target=_renew, args=(catalog, name, owner, purpose, ended), daemon=True
    )
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        with catalog.transaction() as session:
            session.execute(delete(LeaseRow).where(LeaseRow.owner == owner))


def refuse_if_held(session: Session, name: str) -> None:
    """Raise `LeaseHeld` when a living process holds `name`."""
    held = holder_of(session, name)
    if held is not None:
        raise LeaseHeld(
            f"The workspace is held by '{held.purpose}' (process {held.pid} on {held.host}, "
            f"since {format_us(held.taken_us)}).",
            hint="wait until it ends, or run 'konveyer up' so that commands share one worker",
        )


def _take(catalog: Catalog, name: str, owner: str, purpose: str) -> None:
    with catalog.transaction() as session:
        refuse_if_held(session, name)
        now = now_us()
        session.execute(delete(LeaseRow).where(LeaseRow.name == name))
        session.add(
            LeaseRow(
                name=name,
                owner=owner,
                host=socket.gethostname(),
                pid=os.getpid(),
                purpose=purpose,
                taken_us=now,
                expires_us=now + int(TTL_S * 1e6),
            )
        )


def _renew(catalog: Catalog, name: str, owner: str, purpose: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_EVERY_S):
        # A catalog that is away for a moment, or cannot be written, ends no lease: the next time
        # may be early enough.
        with suppress(SQLAlchemyError):
            try:
                if not _renewed(catalog, owner):
                    _take(catalog, name, owner, purpose)  # who had it meanwhile is gone again
            except LeaseHeld as error:
                _log.error("this process could not renew its lease, and ends: %s", error)
                logging.shutdown()
                os._exit(_LOST)


def _renewed(catalog: Catalog, owner: str) -> bool:
    """Whether it was still the owner's."""
    later = now_us() + int(TTL_S * 1e6)
    renewal = update(LeaseRow).where(LeaseRow.owner == owner).values(expires_us=later)
    with catalog.transaction() as session:
        return session.scalar(renewal.returning(LeaseRow.name)) is not None
