"""The REST API: parse, one service call, answer. OpenAPI at /api/openapi.json."""

import logging

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from konveyer import __version__
from konveyer.api import features, people, pushes, releases
from konveyer.catalog.outages import explained
from konveyer.core.addresses import BadRequest, check_address
from konveyer.core.errors import KonveyerError, NotFound
from konveyer.wiring import Workspace

_log = logging.getLogger(__name__)


class RouteNotFound(NotFound):
    code = "route_not_found"


def create_api(workspace: Workspace) -> FastAPI:
    """The API of one workspace; every call but health carries `Authorization: Bearer TOKEN`."""
    app = FastAPI(
        title="Konveyer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        dependencies=[Depends(_check_address)],
    )
    app.state.workspace = workspace
    app.add_exception_handler(KonveyerError, _explained)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(RequestValidationError, _invalid)
    # Known by its type it is no error of the server, which would close the connection.
    app.add_exception_handler(OperationalError, _of_catalog)
    app.add_exception_handler(Exception, _unforeseen)
    for router in (features.router, pushes.router, releases.router, people.router):
        app.include_router(router, prefix="/api")

    @app.api_route("/api/{path:path}", methods=["GET", "POST"], include_in_schema=False)
    def nothing(path: str) -> None:
        raise RouteNotFound(f"There is no /api/{path}.", hint="GET /api/openapi.json")

    @app.get("/health/ready", tags=["health"])
    def ready() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ready"}

    return app


async def _check_address(request: Request) -> None:
    check_address(request.scope["path"], request.url.query)


def _explained(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KonveyerError)  # noqa: S101 - registered for this type
    return JSONResponse({"error": error.as_dict()}, status_code=error.status)


def _plain(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    body = {"code": "http_error", "message": error.detail, "hint": "GET /api/openapi.json"}
    return JSONResponse({"error": body}, status_code=error.status_code)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    wrong = BadRequest(
        f"{where}: {first['msg']}.", hint="GET /api/openapi.json shows what is taken"
    )
    return _explained(_request, wrong)


def _of_catalog(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s failed", request.url.path, exc_info=error)
    return _unforeseen(request, error)


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    return _explained(request, explained(error))
