"""Releases and what is live over HTTP."""

from fastapi import APIRouter, BackgroundTasks
from pydantic import BaseModel

from konveyer.api.access import Caller, Here
from konveyer.execution.releases import flow, service
from konveyer.execution.releases.records import (
    LiveVersion,
    Release,
    list_releases,
    live_versions,
    load_release,
)

router = APIRouter(tags=["execution"])


class Approval(BaseModel):
    comment: str = ""


class Rejection(BaseModel):
    reason: str


@router.get("/models")
def models(here: Here, _caller: Caller, environment: str | None = None) -> list[LiveVersion]:
    """What is served now."""
    with here.catalog.reading() as session:
        return live_versions(session, environment)


@router.get("/releases")
def releases(
    here: Here, _caller: Caller, application: str | None = None, limit: int = 50
) -> list[Release]:
    """Newest first, each with its stages."""
    with here.catalog.reading() as session:
        return list_releases(session, application=application, limit=limit)


@router.get("/releases/{release}")
def show(here: Here, _caller: Caller, release: str) -> Release:
    """One release: each stage with its rule, measurement, limit and evidence."""
    with here.catalog.reading() as session:
        return load_release(session, release)


@router.post("/releases/{release}/approval", status_code=202)
def approve(
    here: Here, caller: Caller, release: str, approval: Approval, later: BackgroundTasks
) -> Release:
    """A second person's yes; the gates that follow run in the pipeline worker."""
    here.refuse_if_busy()
    with here.catalog.transaction() as session:
        service.approve(session, caller, release, comment=approval.comment)
        approved = load_release(session, release)
    run = flow.run_from(approved.state, release, caller.name)
    if run is not None:
        later.add_task(here.run, run, purpose="POST /api/releases")
    return approved


@router.post("/releases/{release}/rejection")
def reject(here: Here, caller: Caller, release: str, rejection: Rejection) -> Release:
    """A second person's no, with the reason."""
    with here.catalog.transaction() as session:
        service.reject(session, caller, release, reason=rejection.reason)
        return load_release(session, release)
