"""The REST API: parse, one service call, answer. OpenAPI at /api/openapi.json."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from konveyer import __version__
from konveyer.api import features, people, releases
from konveyer.core.errors import KonveyerError
from konveyer.wiring import Workspace


def create_api(workspace: Workspace) -> FastAPI:
    """The API of one workspace; every call but health carries `Authorization: Bearer TOKEN`."""
    app = FastAPI(
        title="Konveyer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.workspace = workspace
    app.add_exception_handler(KonveyerError, _explained)
    app.add_exception_handler(HTTPException, _plain)
    for router in (features.router, releases.router, people.router):
        app.include_router(router, prefix="/api")

    @app.get("/health/ready", tags=["health"])
    def ready() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ready"}

    return app


def _explained(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KonveyerError)  # noqa: S101 - registered for this type
    return JSONResponse({"error": error.as_dict()}, status_code=error.status)


def _plain(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    body = {"code": "http_error", "message": error.detail, "hint": "GET /api/openapi.json"}
    return JSONResponse({"error": body}, status_code=error.status_code)
