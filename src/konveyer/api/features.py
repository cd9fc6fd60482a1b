"""Features, their ETL, and training sets over HTTP."""

from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel, Field

from konveyer.api.access import Caller, Here, Reader
from konveyer.api.body import Body, Limit
from konveyer.core.errors import Forbidden
from konveyer.feature_store.datamart.label_files import labels_at
from konveyer.feature_store.datamart.search import FoundFeature, search_features
from konveyer.feature_store.datamart.show import ViewDetails, show_view
from konveyer.feature_store.datamart.training_set import build_training_set
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.etl.runs import EtlRun, list_runs, runs_of

router = APIRouter(tags=["feature store"])


class OutsideWorkspace(Forbidden):
    """A path that the API may not read."""

    code = "outside_workspace"


class EtlOrder(Body):
    """The views to compute; all of them when the list is empty."""

    views: list[str] = Field(default_factory=list)


class TrainingSetOrder(Body):
    """`labels` is a Parquet file inside the workspace; `keys` maps join keys to its columns."""

    service: str
    labels: str
    timestamp: str = "label_timestamp"
    label: str | None = None
    keys: dict[str, str] = Field(default_factory=dict)


class BuiltTrainingSet(BaseModel):
    id: str
    rows: int
    features: int
    path: str
    result_digest: str


@router.get("/features")
def search(here: Here, _reader: Reader, text: str = "") -> list[FoundFeature]:
    """Features that match every word of `text`, the best first."""
    with here.catalog.reading() as session:
        return search_features(session, text)


@router.get("/features/{view}")
def show(here: Here, _reader: Reader, view: str) -> ViewDetails:
    """Everything about one feature view."""
    with here.catalog.reading() as session:
        return show_view(session, view)


@router.get("/etl/runs")
def etl_runs(
    here: Here, _reader: Reader, view: str | None = None, limit: Limit = 50
) -> list[EtlRun]:
    """The record of ETL, newest first."""
    with here.catalog.reading() as session:
        return list_runs(session, view=view, limit=limit)


@router.post("/etl/runs")
def run_etl(here: Here, caller: Caller, order: EtlOrder) -> list[EtlRun]:
    """Compute, check and publish views; answers when they are done."""
    with here.catalog.reading() as session:
        as_of_us = here.settings.clock.now_us()
        plan = plan_etl(
            session, caller, order.views, as_of_us=as_of_us, pins=here.release_pins(session)
        )
    here.run(plan.run, purpose="POST /api/etl/runs")
    with here.catalog.reading() as session:
        return runs_of(session, plan.run_id)


@router.post("/training-sets", status_code=201)
def build(here: Here, caller: Caller, order: TrainingSetOrder) -> BuiltTrainingSet:
    """Join the features of a service to labels, exactly one row for each label."""
    built = build_training_set(
        here.catalog,
        caller,
        here.engine,
        here.offline,
        service=order.service,
        labels=labels_at(_inside(here.settings.root, order.labels)),
        timestamp=order.timestamp,
        label=order.label,
        folder=here.training_sets,
        columns=order.keys,
    )
    return BuiltTrainingSet(
        id=built.manifest.id,
        rows=built.manifest.rows,
        features=len(built.manifest.service.features),
        path=str(built.path),
        result_digest=built.manifest.result_digest,
    )


def _inside(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise OutsideWorkspace(f"'{name}' is outside the workspace.", hint="name a file inside it")
    return path
