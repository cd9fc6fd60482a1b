"""Which kept run a project's submission takes."""

from pathlib import Path

import msgspec
import pytest

from konveyer.development.tracking import Tracking
from konveyer.development.training import RECORD, RunNotFound, TrainingRun, Workshop, find_run


def kept(runs: Path, run_id: str, finished_us: int, **changes: str) -> None:
    run = TrainingRun(
        run_id=run_id,
        application="scoring",
        training_set="ts-1",
        person="ana",
        finished_us=finished_us,
        parameters={},
        metrics={},
        categories={},
    )
    record = msgspec.to_builtins(run) | changes
    if "project" not in changes:
        del record["project"]  # as it was kept before runs named their project
    (runs / run_id).mkdir(parents=True)
    (runs / run_id / RECORD).write_bytes(msgspec.json.encode(record))


def test_the_newest_run_is_that_of_the_project(tmp_path: Path) -> None:
    kept(tmp_path, "own", 1, project="models/own")
    kept(tmp_path, "other", 2, project="models/other")
    kept(tmp_path, "foreign", 3, project="models/own", application="pricing")

    def found(run_id: str | None = None, project: str | None = None) -> str:
        return find_run(tmp_path, "scoring", run_id, project)[0].run_id

    assert found(project="models/own") == "own"
    assert found(project="models/other") == "other"
    assert found() == "other"
    assert found("other", "models/own") == "other"
    with pytest.raises(RunNotFound, match="from models/new") as refused:
        found(project="models/new")
    assert "--run other" in str(refused.value.hint)
    kept(tmp_path, "older", 4)
    assert found(project="models/own") == "older"


@pytest.mark.parametrize(
    "run_id", ["", "*", "own*", "/tmp", "a**b", "..", "../own", "\0", "a" * 300]
)
def test_a_run_is_named_by_its_whole_id_only(tmp_path: Path, run_id: str) -> None:
    runs = tmp_path / "runs"
    kept(runs, "own", 1)
    kept(tmp_path, "own", 1)
    (tmp_path / RECORD).write_bytes((runs / "own" / RECORD).read_bytes())
    (runs / RECORD).write_bytes((runs / "own" / RECORD).read_bytes())
    with pytest.raises(RunNotFound):
        find_run(runs, "scoring", run_id)


def test_a_project_is_named_from_its_workspace(tmp_path: Path) -> None:
    root = tmp_path / "bank"
    tracking = Tracking(url="", artifacts="")
    shop = Workshop(root=root, environments=root, runs=root, tracking=tracking)
    assert shop.named(root / "models" / "own") == "models/own"
    assert shop.named(tmp_path / "own") == str((tmp_path / "own").resolve())
