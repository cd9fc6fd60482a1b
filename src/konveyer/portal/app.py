"""The portal."""

from fastapi import FastAPI

from konveyer.wiring import Workspace


def create_portal(workspace: Workspace) -> FastAPI:
    return FastAPI()
