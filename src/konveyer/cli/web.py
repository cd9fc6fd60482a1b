"""The web process: the REST API and the portal in one application."""

import uvicorn
from fastapi import FastAPI

from konveyer.api.app import create_api
from konveyer.core.sockets import listening
from konveyer.execution.serving.json_logs import log_json
from konveyer.portal.app import create_portal
from konveyer.wiring import Workspace


def create_web(workspace: Workspace) -> FastAPI:
    """The API under /api, the portal under everything else."""
    app = create_api(workspace)
    app.mount("/", create_portal(workspace))
    return app


def serve_web(workspace: Workspace, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    listener = listening(host, port)
    log_json()
    config = uvicorn.Config(
        create_web(workspace), log_config=None, access_log=False, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])
