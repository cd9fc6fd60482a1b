"""What each page shows: one service call, and the template that renders it."""

from starlette.requests import Request

from konveyer.core.errors import KonveyerError, NotFound
from konveyer.execution.releases.compare import compare
from konveyer.execution.releases.lead_time import lead_time
from konveyer.execution.releases.machine import OPTIONAL, STAGES, State
from konveyer.execution.releases.period import lead_times_since
from konveyer.execution.releases.records import (
    LiveVersion,
    Release,
    list_releases,
    live_versions,
    load_release,
)
from konveyer.execution.serving.description import describe
from konveyer.execution.serving.presence import nodes_of
from konveyer.feature_store.datamart.search import search_features
from konveyer.feature_store.datamart.show import show_view
from konveyer.feature_store.etl.runs import list_runs
from konveyer.wiring import Workspace

Answer = tuple[str, dict[str, object]]


class PageNotFound(NotFound):
    code = "page_not_found"


def features(workspace: Workspace, request: Request) -> Answer:
    text = request.query_params.get("q", "")
    with workspace.catalog.reading() as session:
        found = search_features(session, text)
    return "features.html", {"section": "features", "text": text, "found": found}


def feature_view(workspace: Workspace, request: Request) -> Answer:
    with workspace.catalog.reading() as session:
        view = show_view(session, request.path_params["view"])
    return "feature_view.html", {"section": "features", "view": view}


def runs(workspace: Workspace, request: Request) -> Answer:
    with workspace.catalog.reading() as session:
        found = list_runs(session, view=request.query_params.get("view") or None, limit=100)
    return "runs.html", {"section": "runs", "runs": found}


def models(workspace: Workspace, _request: Request) -> Answer:
    with workspace.catalog.reading() as session:
        found = live_versions(session)
    nodes = {
        environment: nodes_of(workspace.storage, environment)
        for environment in {live.environment for live in found}
    }
    cards = [
        {"live": live, "nodes": nodes[live.environment], **_contract(workspace, live)}
        for live in found
    ]
    return "models.html", {"section": "models", "cards": cards}


def _contract(workspace: Workspace, live: LiveVersion) -> dict[str, object]:
    """The contract of what is live, or why it cannot be read."""
    try:
        manifest = workspace.bundles.open(live.digest).manifest
    except KonveyerError as error:  # nodes go on with their own copy
        return {"contract": None, "problem": error}
    contract = describe(manifest, digest=live.digest, release=live.release, since_us=live.since_us)
    return {"contract": contract, "problem": None}


def releases(workspace: Workspace, _request: Request) -> Answer:
    with workspace.catalog.reading() as session:
        found = list_releases(session, limit=100)
        goal_days = workspace.settings.releases.lead_time_days
        times = lead_times_since(session, "90d", goal_days=goal_days)
    rows = [(release, lead_time(release), _dots(release)) for release in found]
    return "releases.html", {"section": "releases", "rows": rows, "times": times}


def _dots(release: Release) -> list[tuple[State, str]]:
    """Each stage of the release with its verdict."""
    verdicts = {stage.stage: stage.verdict for stage in release.stages}
    return [(stage, verdicts.get(stage, "ahead")) for stage in _own_stages(release)]


def _own_stages(release: Release) -> list[State]:
    """All that this release goes through; what nobody asks of it is left out."""
    return [stage for stage in STAGES if stage not in OPTIONAL or stage in release.required]


def release(workspace: Workspace, request: Request) -> Answer:
    with workspace.catalog.reading() as session:
        found = load_release(session, request.path_params["release"])
    reached = {stage.stage for stage in found.stages}
    manifest, changed, problem = None, None, None
    try:
        manifest = workspace.bundles.open(found.digest).manifest
        changed = compare(workspace.catalog, workspace.bundles, found.id)
    except KonveyerError as error:  # a bundle is gone: the record of the release is still here
        problem = error
    return "release.html", {
        "manifest": manifest,
        "changed": changed,
        "problem": problem,
        "section": "releases",
        "release": found,
        "lead": lead_time(found),
        "ahead": [stage for stage in _own_stages(found) if stage not in reached],
    }


def nothing(_workspace: Workspace, request: Request) -> Answer:
    raise PageNotFound(f"There is no page {request.url.path}.", hint="start at /features")
