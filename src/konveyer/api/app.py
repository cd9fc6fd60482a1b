"""The REST API."""

from fastapi import FastAPI

from konveyer.wiring import Workspace


def create_api(workspace: Workspace) -> FastAPI:
    app = FastAPI(title="Konveyer")

    @app.get("/health/ready")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app
