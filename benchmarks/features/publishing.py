"""An ETL run in two halves: all up to publishing, which is not measured, and publishing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import update

from benchmarks.features.workspace import opened
from konveyer.feature_store.etl.flow import etl_flow
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.etl.runs import RUNNING
from konveyer.feature_store.etl.tables import EtlRunRow
from konveyer.wiring import Workspace

KEPT = "state/benchmark_steps.json"
PUBLISH = "publish "


class UnpublishedSteps:
    """Runs and records the steps up to publishing, as if the run were killed there."""

    def __init__(self) -> None:
        self.done: dict[str, Any] = {}

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        if name.startswith(PUBLISH):
            return None
        self.done[name] = work()
        return self.done[name]


class ResumedSteps:
    """Goes on where `UnpublishedSteps` stopped: what was recorded is not run again."""

    def __init__(self, done: Mapping[str, Any]) -> None:
        self._done = done

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        return self._done[name] if name in self._done else work()


def compute(root: Path) -> None:
    """Run ETL up to publishing; keep the plan and the steps' results in the workspace."""
    steps = UnpublishedSteps()
    with opened(root) as (workspace, actor):
        with workspace.catalog.reading() as session:
            now_us = workspace.settings.clock.now_us()
            plan = msgspec.to_builtins(plan_etl(session, actor, (), as_of_us=now_us))
        etl_flow(workspace.etl).run(steps, plan)
    (root / KEPT).write_text(json.dumps({"plan": plan, "done": steps.done}))


def unpublish(workspace: Workspace) -> None:
    """Bring the run back to where `compute` left it: one that has succeeded publishes nothing."""
    with workspace.catalog.transaction() as session:
        session.execute(update(EtlRunRow).values(status=RUNNING, table_version=None))


def publish(workspace: Workspace) -> None:
    """The publishing steps of the run that `compute` left."""
    kept = json.loads((workspace.settings.root / KEPT).read_text())
    etl_flow(workspace.etl).run(ResumedSteps(kept["done"]), kept["plan"])
