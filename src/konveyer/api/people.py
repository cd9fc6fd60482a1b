"""People and the audit log over HTTP."""

from fastapi import APIRouter

from konveyer.access.people import Person, add_person, list_people
from konveyer.access.roles import Role
from konveyer.api.access import Caller, Here, Reader
from konveyer.api.body import Body
from konveyer.catalog.audit import AuditEntry, entries

router = APIRouter(tags=["people"])


class NewPerson(Body):
    name: str
    roles: list[Role]


@router.get("/me")
def me(caller: Caller) -> Person:
    """The holder of the token."""
    return Person(caller.name, caller.roles)


@router.get("/people")
def people(here: Here, _reader: Reader) -> list[Person]:
    """By name."""
    with here.catalog.reading() as session:
        return list_people(session)


@router.post("/people", status_code=201)
def add(here: Here, caller: Caller, person: NewPerson) -> Person:
    """Make an account; only an administrator may."""
    with here.catalog.transaction() as session:
        return add_person(session, caller, person.name, frozenset(person.roles))


@router.get("/audit")
def audit(
    here: Here, _reader: Reader, kind: str | None = None, subject: str | None = None
) -> list[AuditEntry]:
    """What was changed, by whom and when; newest first."""
    with here.catalog.reading() as session:
        return entries(session, kind=kind, subject=subject)
