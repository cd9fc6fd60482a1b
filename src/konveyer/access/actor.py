"""Actor: the person whose token a command or a request carries."""

from dataclasses import dataclass

from konveyer.access.roles import GRANTS, Permission, Role
from konveyer.core.errors import Forbidden


class NotAllowed(Forbidden):
    """None of the person's roles grants this."""

    code = "not_allowed"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, with the roles that decide what he may do.

    >>> Actor("ana", frozenset({Role.ANALYST})).may(Permission.RUN_ETL)
    False
    """

    name: str
    roles: frozenset[Role]

    def may(self, permission: Permission) -> bool:
        return any(permission in GRANTS[role] for role in self.roles)

    def require(self, permission: Permission) -> None:
        if self.may(permission):
            return
        granting = sorted(role for role in Role if permission in GRANTS[role])
        raise NotAllowed(
            f"{self.name} may not {permission}.",
            hint=f"ask someone who is {' or '.join(granting)}",
        )
