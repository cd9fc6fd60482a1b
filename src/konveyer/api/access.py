"""Who calls: the holder of the bearer token."""

from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.access.tokens import authenticate
from konveyer.core.errors import KonveyerError
from konveyer.wiring import Workspace

_bearer = HTTPBearer(auto_error=False, description="A token from 'konveyer people token NAME'.")


class TokenMissing(KonveyerError):
    code, status = "token_missing", HTTPStatus.UNAUTHORIZED


def workspace_of(request: Request) -> Workspace:
    workspace: Workspace = request.app.state.workspace
    return workspace


def caller(
    workspace: Annotated[Workspace, Depends(workspace_of)],
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Actor:
    if given is None:
        raise TokenMissing(
            "The request carries no token.", hint="send the header Authorization: Bearer kvy_..."
        )
    with workspace.catalog.reading() as session:
        return authenticate(session, given.credentials)


def reader(actor: Annotated[Actor, Depends(caller)]) -> Actor:
    """A caller who may see what there is: everybody but producers."""
    actor.require(Permission.READ)
    return actor


Here = Annotated[Workspace, Depends(workspace_of)]
Caller = Annotated[Actor, Depends(caller)]
Reader = Annotated[Actor, Depends(reader)]
