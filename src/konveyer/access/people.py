"""Accounts."""

import re
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission, Role
from konveyer.access.tables import PersonRow
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.core.errors import Conflict, KonveyerError, NotFound, did_you_mean
from konveyer.pipeline.schedule import SCHEDULE

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")


class BadPersonName(KonveyerError):
    code = "bad_person_name"


class PersonExists(Conflict):
    code = "person_exists"


class NotAdministrator(Conflict):
    code = "not_administrator"


class PersonNotFound(NotFound):
    code = "person_not_found"


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    roles: frozenset[Role]


def add_person(session: Session, actor: Actor, name: str, roles: frozenset[Role]) -> Person:
    """Make an account; only an administrator may."""
    actor.require(Permission.MANAGE_PEOPLE)
    return _add(session, actor.name, name, roles)


def add_first_administrator(session: Session, name: str) -> Person:
    """The one account that nobody makes: in a catalog without people."""
    if session.scalar(select(func.count()).select_from(PersonRow)):
        raise PersonExists(
            "This catalog has people already.", hint="ask an administrator for an account"
        )
    return _add(session, name, name, frozenset({Role.ADMINISTRATOR}))


def _add(session: Session, actor: str, name: str, roles: frozenset[Role]) -> Person:
    if not _NAME.fullmatch(name):
        raise BadPersonName(
            f"'{name}' cannot be a person's name.",
            hint="use lower-case letters, digits, '.', '_' and '-', a letter first",
        )
    if name == SCHEDULE:
        raise BadPersonName(
            f"'{name}' is who starts runs that nobody starts.", hint="choose another name"
        )
    if not roles:
        raise BadPersonName(f"'{name}' has no role.", hint=f"give one of {', '.join(Role)}")
    if session.get(PersonRow, name) is not None:
        raise PersonExists(f"'{name}' has an account already.", hint="choose another name")
    session.add(PersonRow(name=name, roles=sorted(roles), created_us=now_us()))
    session.flush()
    audit.record(session, actor, "added", "person", name, roles=sorted(roles))
    return Person(name, roles)


def recover_administrator(session: Session, name: str) -> Actor:
    """The administrator `name`, for whoever can write the catalog's database itself.

    The last resort when no administrator has a valid token; it is on record.
    """
    found = person(session, name)
    if Role.ADMINISTRATOR not in found.roles:
        raise NotAdministrator(f"{name} is no administrator.", hint="name one that is")
    audit.record(session, "whoever holds the database", "recovered", "person", name)
    return Actor(found.name, found.roles)


def list_people(session: Session) -> list[Person]:
    """By name."""
    rows = session.scalars(select(PersonRow).order_by(PersonRow.name))
    return [_person(row) for row in rows]


def person(session: Session, name: str) -> Person:
    row = session.get(PersonRow, name)
    if row is None:
        known = session.scalars(select(PersonRow.name))
        raise PersonNotFound(
            f"There is no account '{name}'.",
            hint=did_you_mean(name, known, otherwise="konveyer people list"),
        )
    return _person(row)


def _person(row: PersonRow) -> Person:
    return Person(row.name, frozenset(Role(role) for role in row.roles))
