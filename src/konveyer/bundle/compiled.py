"""A bundle's model in the form that a node runs itself: explicit preparation, then a scorer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from konveyer.bundle.calibrated import Calibrated, CalibratedPart, calibration_of
from konveyer.bundle.errors import ModelFailed, ModelUnusable
from konveyer.bundle.forest import ForestScorer, UnknownTrees
from konveyer.bundle.lightgbm import LightGBMScorer
from konveyer.bundle.linear import LinearScorer
from konveyer.bundle.manifest import (
    CALIBRATED,
    COMPILED,
    ISOLATED,
    LINEAR,
    MODEL,
    ONNX,
    PREPARATION,
    Manifest,
)
from konveyer.bundle.onnx import OnnxScorer
from konveyer.bundle.plan import Columns, Plan, plan_of_codes
from konveyer.bundle.steps import Matrix
from konveyer.bundle.store import Bundle
from konveyer.feature_store.online.codec import Value

CALIBRATED_FORM = "calibrated"


class Scorer(Protocol):
    """A model of numbers. Thread-safe. `outputs` is how many numbers it gives for a row."""

    outputs: int

    def score(self, rows: Matrix) -> Matrix: ...


class Scores(Protocol):
    """A model of rows of feature values, in the order of the service. Thread-safe."""

    outputs: int

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix: ...

    def scores_of(self, columns: Columns) -> Matrix: ...


class Prepared:
    """A scorer behind its preparation."""

    def __init__(self, plan: Plan, scorer: Scorer) -> None:
        self._plan, self._scorer, self.outputs = plan, scorer, scorer.outputs

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix:
        return self._scorer.score(self._plan.matrix(rows))

    def scores_of(self, columns: Columns) -> Matrix:
        return self._scorer.score(self._plan.matrix_of(columns))


class CompiledModel:
    """Answers rows of feature values, in the order of the service; thread-safe."""

    def __init__(self, model: Scores) -> None:
        self._model = model

    def predict(self, rows: Sequence[Sequence[Value]]) -> list[tuple[float, ...]]:
        """One tuple for each row, with the manifest's outputs in order.

        Raises `ModelFailed` when there is no answer, as the model itself would.
        """
        scores = self._model.scores(rows).tolist()
        for one in scores:
            if not all(map(math.isfinite, one)):
                raise _no_answer()
        return [tuple(one) for one in scores]

    def predict_columns(self, columns: Columns) -> Matrix:
        """The same of many rows: an array (rows, outputs)."""
        scores = self._model.scores_of(columns)
        if not np.isfinite(scores).all():
            raise _no_answer()
        return scores


def _no_answer() -> ModelFailed:
    return ModelFailed(
        "The model's answer is not a finite number.",
        hint="see the features in the prediction log; train a model that takes them",
    )


def compiled_model(bundle: Bundle) -> CompiledModel:
    """The model of a bundle that was opened, which means verified.

    Raises `ModelUnusable` when it does not fit its manifest, or is no compiled one.
    """
    files = bundle.manifest.files
    try:
        return compiled_in(bundle.path, bundle.manifest, has_plan=PREPARATION in files)
    except (OSError, LookupError, ValueError, msgspec.MsgspecError) as error:
        raise ModelUnusable(
            f"The files of the model cannot be read: {type(error).__name__}: {error}.",
            hint="submit the model again",
        ) from error


def compiled_in(folder: Path, manifest: Manifest, *, has_plan: bool = True) -> CompiledModel:
    """The model whose files are in `folder`, in the form that `manifest` names."""
    spec = manifest.model
    names = [column.name for column in manifest.service.columns]
    model: Scores
    if spec.form == CALIBRATED_FORM:
        model = _calibrated(folder, names)
    elif has_plan:
        model = _prepared(spec.form, folder, names)
    else:
        plan = plan_of_codes(names, manifest.categories)
        model = Prepared(plan, _scorer(spec.form, folder, plan.width))
    if model.outputs != len(spec.outputs):
        raise ModelUnusable(
            f"The model gives {model.outputs} numbers, its contract has {len(spec.outputs)}.",
            hint="train and submit the model again",
        )
    return CompiledModel(model)


def _prepared(form: str, folder: Path, names: Sequence[str]) -> Prepared:
    plan = Plan(msgspec.json.decode((folder / PREPARATION).read_bytes()), names)
    return Prepared(plan, _scorer(form, folder, plan.width))


def _calibrated(folder: Path, names: Sequence[str]) -> Calibrated:
    parts = msgspec.json.decode((folder / CALIBRATED).read_bytes(), type=list[CalibratedPart])
    return Calibrated(
        [
            (_prepared(part.form, folder / COMPILED / part.folder, names), calibration_of(part))
            for part in parts
        ]
    )


def _trees(path: Path, width: int) -> Scorer:
    try:
        return ForestScorer(path, width)
    except UnknownTrees:
        return LightGBMScorer(path, width)


def _scorer(form: str, folder: Path, width: int) -> Scorer:
    match form:
        case "lightgbm":
            return _trees(folder / MODEL, width)
        case "linear":
            return LinearScorer(msgspec.json.decode((folder / LINEAR).read_bytes()), width)
        case "onnx":
            return OnnxScorer(folder / ONNX, width)
    raise ModelUnusable(
        f"A model of the form '{form}' does not run in this process.",
        hint="the isolated lane serves it" if form == ISOLATED else "upgrade this Konveyer",
    )
