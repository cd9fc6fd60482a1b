"""The portal: server-rendered pages over the services of the API. They change nothing."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from konveyer.catalog.outages import explained
from konveyer.core.addresses import check_address
from konveyer.core.errors import KonveyerError
from konveyer.core.wording import seconds, when
from konveyer.portal import pages
from konveyer.portal.charts import histogram
from konveyer.wiring import Workspace

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_log = logging.getLogger(__name__)
Page = Callable[[Workspace, Request], tuple[str, dict[str, object]]]


def create_portal(workspace: Workspace) -> Starlette:
    """The pages of one workspace."""
    templates = Environment(
        loader=PackageLoader("konveyer.portal"), autoescape=True, undefined=StrictUndefined
    )
    templates.filters |= {"seconds": seconds, "when": when, "histogram": histogram}

    def route(path: str, page: Page) -> Route:
        def answer(request: Request) -> Response:
            try:
                check_address(request.scope["path"], request.url.query)
                name, values = page(workspace, request)
                status = HTTPStatus.OK
            except KonveyerError as error:
                name, values, status = "error.html", {"error": error, "section": ""}, error.status
            except Exception as error:  # noqa: BLE001 - the boundary: a person must get a page
                _log.exception("%s failed", request.url.path)
                told = explained(error)
                name, values, status = "error.html", {"error": told, "section": ""}, told.status
            content = templates.get_template(name).render(
                workspace=workspace.settings.workspace.name, **values
            )
            return HTMLResponse(content, status_code=status)

        return Route(path, answer)

    return Starlette(
        routes=[
            Route("/", _home),
            route("/features", pages.features),
            route("/features/{view}", pages.feature_view),
            route("/runs", pages.runs),
            route("/models", pages.models),
            route("/releases", pages.releases),
            route("/releases/{release}", pages.release),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
            route("/{path:path}", pages.nothing),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=_secured)],
    )


def _home(_request: Request) -> Response:
    return RedirectResponse("/features")


async def _secured(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response
