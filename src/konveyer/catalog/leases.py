"""Leases: one holder at a time for a name, freed when the holder ends, dies or goes silent."""

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Mapped, Session, mapped_column

from konveyer.catalog.base import Base
from konveyer.catalog.session import Catalog
from konveyer.core.clock import format_us, now_us
from konveyer.core.errors import Conflict
from konveyer.core.processes import is_alive

TTL_S = 15.0
RENEW_EVERY_S = 5.0


class LeaseRow(Base):
    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
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
    """The living holder of `name`; a dead process on this host or a lapsed lease holds nothing."""
    row = session.get(LeaseRow, name)
    if row is None or row.expires_us <= now_us():
        return None
    if row.host == socket.gethostname() and not is_alive(row.pid):
        return None
    return Holder(host=row.host, pid=row.pid, purpose=row.purpose, taken_us=row.taken_us)


@contextmanager
def lease(catalog: Catalog, name: str, *, purpose: str) -> Iterator[None]:
    """Hold `name` for the block; raises `LeaseHeld` at once when another process holds it.

    A thread renews it every few seconds. A holder that was killed is replaced at once by a
    process on the same host, and after `TTL_S` by one elsewhere.
    """
    owner = secrets.token_hex(8)
    try:
        _take(catalog, name, owner, purpose)
    except IntegrityError:  # another one took it in the same moment
        with catalog.reading() as session:
            refuse_if_held(session, name)
        raise
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(catalog, owner, ended), daemon=True)
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


def _renew(catalog: Catalog, owner: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_EVERY_S):
        # A catalog that is away for a moment ends no lease: the next time may be early enough.
        with suppress(OperationalError), catalog.transaction() as session:
            later = now_us() + int(TTL_S * 1e6)
            session.execute(
                update(LeaseRow).where(LeaseRow.owner == owner).values(expires_us=later)
            )
