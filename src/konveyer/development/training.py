"""Training: the project's `model.py` in its own environment, recorded so that it can repeat."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.bundle.manifest import ENTITIES, GOLDEN, NATIVE, TRAINING, Entities, Golden, ModelSpec
from konveyer.bundle.manifest import LOCK as BUNDLE_LOCK
from konveyer.bundle.readable import check_readable
from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError, NotFound, did_you_mean
from konveyer.core.files import folder_written_whole
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.development.environment import ensure_environment, native_command
from konveyer.development.project import LOCK, Project, check_batch
from konveyer.development.tracking import Tracking
from konveyer.feature_store.datamart.manifest import DATA, MANIFEST, TrainingSet

RECORD, MODEL, CODE = "run.json", "model.txt", "code"
_ENTITIES_KEPT = 1000
_TRACEBACK_LINES, _MOST_CLASSES = 15, 1000
_HARNESS = "konveyer.development.harness"
_NOT_CODE = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


class TrainingFailed(KonveyerError):
    """The project's own code raised an error while it trained."""

    code = "training_failed"


class LabelsUnfit(KonveyerError):
    """The label column is not what the task of the project learns from."""

    code = "labels_unfit"


class RunNotFound(NotFound):
    code = "run_not_found"


class TrainingRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a training run was and what it measured on the out-of-time part.

    `project` is the folder that it was trained from, as `Workshop.named` says it.
    """

    run_id: str
    application: str
    project: str = ""
    training_set: str
    person: str
    finished_us: int
    parameters: dict[str, Any]
    metrics: dict[str, float]
    categories: dict[str, tuple[str, ...]]
    outputs: tuple[ScalarColumn, ...] = ModelSpec().outputs

    @property
    def summary(self) -> str:
        """The measure that models of this task are compared by, such as `AUC 0.8123`."""
        names = {"auc": "AUC", "log_loss": "log loss", "rmse": "RMSE", "accuracy": "accuracy"}
        found = next(name for name in names if name in self.metrics)
        return f"{names[found]} {self.metrics[found]:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where training works: the workspace's folder, environments, kept runs, and MLflow."""

    root: Path
    environments: Path
    runs: Path
    tracking: Tracking

    def named(self, project: Path) -> str:
        """A project's folder as runs name it: from the workspace, which may move with its runs.

        One outside of it by its whole path.
        """
        folder, root = project.resolve(), self.root.resolve()
        return str(folder.relative_to(root) if folder.is_relative_to(root) else folder)


def train(
    project: Project, training_set: TrainingSet, actor: Actor, workshop: Workshop
) -> TrainingRun:
    """Train, measure, log to MLflow, and keep the run's folder under its MLflow run id.

    The folder has the model, golden cases, the code and lock it was trained with and the manifest
    of its training set. When the model's code fails, the MLflow run is marked so and no folder
    is kept.
    """
    actor.require(Permission.TRAIN)
    check_readable(training_set.manifest.service)
    check_batch(project, training_set.manifest.service)
    _check_labels(project, training_set)
    python = ensure_environment(project.folder / LOCK, workshop.environments)
    tags = {"training_set": training_set.manifest.id, "service": project.model.service}
    run_id = workshop.tracking.start(project.model.application, person=actor.name, tags=tags)
    try:
        with folder_written_whole(workshop.runs / run_id) as folder:
            run = _train_in(folder, project, training_set, python, run_id, actor, workshop)
    except BaseException:
        workshop.tracking.fail(run_id)
        raise
    return run


def _train_in(
    folder: Path,
    project: Project,
    training_set: TrainingSet,
    python: Path,
    run_id: str,
    actor: Actor,
    workshop: Workshop,
) -> TrainingRun:
    shutil.copytree(project.folder, folder / CODE, ignore=_NOT_CODE)
    shutil.copy(project.folder / LOCK, folder / BUNDLE_LOCK)
    shutil.copy(training_set.path / MANIFEST, folder / TRAINING)
    entities = sampled_entities(training_set, _ENTITIES_KEPT)
    (folder / ENTITIES).write_bytes(msgspec.json.encode(entities))
    service = training_set.manifest.service
    windowed = {view.name for view in service.views if view.windowed}
    windowed |= {
        view.name for view in service.on_demand if any(one.view in windowed for one in view.inputs)
    }
    request = {
        "data": str(training_set.path / DATA),
        "label": project.labels.label,
        "task": project.labels.task,
        "input": project.model.input,
        "timestamp": project.labels.timestamp,
        "split_us": project.split_us,
        "features": [feature.name for feature in service.features],
        "windowed": [f.name for f in service.features if f.view in windowed],
        "parameters": project.parameters,
    }
    (folder / "request.json").write_bytes(msgspec.json.encode(request))
    _run_harness(python, folder, workshop.tracking.url, run_id)
    result = msgspec.json.decode((folder / "result.json").read_bytes())
    golden = msgspec.convert(result["golden"], Golden)
    (folder / GOLDEN).write_bytes(msgspec.json.encode(golden))
    run = TrainingRun(
        run_id=run_id,
        application=project.model.application,
        project=workshop.named(project.folder),
        training_set=training_set.manifest.id,
        person=actor.name,
        finished_us=now_us(),
        parameters=project.parameters,
        metrics=result["metrics"],
        categories=result["categories"],
        outputs=tuple(
            ScalarColumn(name, ColumnType.STRING if is_text else ColumnType.FLOAT64)
            for name, is_text in zip(result["outputs"], result["texts"], strict=True)
        ),
    )
    (folder / RECORD).write_bytes(msgspec.json.encode(run))
    for name in ("request.json", "result.json"):
        (folder / name).unlink()
    workshop.tracking.finish(
        run_id,
        parameters=run.parameters,
        metrics=run.metrics,
        model=folder / MODEL if (folder / MODEL).is_file() else None,
        native=folder / NATIVE,
        training_manifest=folder / TRAINING,
        requirements=_pinned(folder / BUNDLE_LOCK),
    )
    return run


def sampled_entities(training_set: TrainingSet, most: int) -> Entities:
    """At most `most` different entities, spread evenly over the training set."""
    manifest = training_set.manifest
    keys, fields = list(manifest.keys), [field.name for field in manifest.service.request]
    table = training_set.read([*keys, *fields])
    numbered = table.append_column("_row", pa.array(np.arange(len(table))))
    first = numbered.group_by(keys, use_threads=False).aggregate([("_row", "min")])["_row_min"]
    places = np.linspace(0, len(first) - 1, min(most, len(first))).astype(int)
    chosen = table.take(first.take(pa.array(places)))
    return Entities(keys=_rows_of(chosen.select(keys)), requests=_rows_of(chosen.select(fields)))


def _rows_of(table: pa.Table) -> tuple[tuple[Any, ...], ...]:
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in table.columns
    ]
    return tuple(zip(*columns, strict=True)) if columns else ((),) * len(table)


def _run_harness(python: Path, folder: Path, tracking_url: str, run_id: str) -> None:
    """The model's process sees MLflow's own variables, so that it may log more to the same run."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KONVEYER_")},
        "MLFLOW_TRACKING_URI": tracking_url,
        "MLFLOW_RUN_ID": run_id,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        native_command(python, _HARNESS, str(folder)),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder / CODE,
    )
    if done.returncode or not (folder / "result.json").is_file():
        code = str(folder / CODE)
        lines = done.stderr.replace(code, CODE).strip().splitlines()
        last = lines[-1] if lines else f"it ended with exit status {done.returncode}"
        raise TrainingFailed(
            f"Training failed: {last}",
            hint="correct the project, then train again",
            detail={"traceback": "\n".join(lines[-_TRACEBACK_LINES:])},
        )


def _check_labels(project: Project, training_set: TrainingSet) -> None:
    for name in (project.labels.label, project.labels.timestamp):
        if name not in training_set.column_names:
            raise LabelsUnfit(
                f"Training set {training_set.manifest.id} has no column '{name}', which model.toml "
                "names under [labels].",
                hint=did_you_mean(name, training_set.column_names, otherwise="correct model.toml"),
            )
    column = training_set.read([project.labels.label]).column(0)
    needed = _unfit(project.labels.task, column)
    if needed:
        values = sorted(map(str, column.unique().to_pylist()))[:5]
        raise LabelsUnfit(
            f"Label column '{project.labels.label}' is {column.type} with values such as {values}.",
            hint=f"make it {needed}, without nulls",
        )


def _unfit(task: str, column: pa.ChunkedArray) -> str:
    """What the labels should be, when they are not."""
    kind, different = column.type, column.unique()
    whole = pa.types.is_integer(kind)
    number = whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    match task:
        case "binary" if not whole or not set(different.to_pylist()) <= {0, 1}:
            return "whole numbers 0 and 1, or set [labels] task"
        case "multiclass" if not whole and not pa.types.is_string(kind):
            return "texts or whole numbers"
        case "multiclass" if len(different) > _MOST_CLASSES:
            return f"at most {_MOST_CLASSES} classes"
        case "regression" if not number:
            return "numbers"
    return "" if column.null_count == 0 else "complete"


def _pinned(lock: Path) -> list[str]:
    lines = (line.split(" ")[0] for line in lock.read_text().splitlines())
    return [line for line in lines if "==" in line]


def find_run(
    runs: Path, application: str, run_id: str | None, project: str | None = None
) -> tuple[TrainingRun, Path]:
    """A kept run of `application` by its id; when None the newest one that `project` trained.

    Without `project`, of whichever. Several projects may train models of one application; runs that
    were kept before they named their project count as any's.
    """
    kept = []
    for record in runs.glob(f"*/{RECORD}"):
        if run_id not in (None, record.parent.name):
            continue  # an id is compared only: it may be sent by anybody, and be any text
        run = msgspec.json.decode(record.read_bytes(), type=TrainingRun)
        if run.application == application:
            kept.append((run, record.parent))
    if not kept:
        named = "" if run_id is None else f" '{run_id}'"
        raise RunNotFound(
            f"There is no training run{named} of '{application}'.",
            hint="train first: konveyer train PROJECT",
        )
    own = [one for one in kept if run_id or project is None or one[0].project in ("", project)]
    newest, folder = max(own or kept, key=lambda pair: pair[0].finished_us)
    if not own:
        raise RunNotFound(
            f"There is no training run of '{application}' from {project}.",
            hint=f"train first: konveyer train {project}; or take the newest one from "
            f"{newest.project}: --run {newest.run_id}",
        )
    return newest, folder
