"""Finds the compiled form of a trained model. Run in the model's own environment by `konveyer`.

Reads `native/` in the first folder named on the command line, writes the preparation and a scorer
to the second, and prints JSON: the form, or the reason why there is none, and whether ONNX is still
to be tried. A third argument, "double" or "float", tries it, where skl2onnx is installed.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from konveyer.bundle.native.columns import NAN, Column, NotCompiled, plan_of
from konveyer.bundle.native.inputs import CODES, Inputs
from konveyer.bundle.native.linear import linear_of
from konveyer.bundle.native.model import MLFLOW, NativeModel, load
from konveyer.bundle.native.onnx_form import FLOAT, write_onnx
from konveyer.bundle.native.transformers import transformed
from konveyer.bundle.native.tree_models import Ensemble, ensemble_of
from konveyer.bundle.native.trees import model_text

ONNX, CALIBRATED = "model.onnx", "calibrated.json"
PREPARATION, TREES, LINEAR = "preparation.json", "model.txt", "linear.json"


def compiled(native: NativeModel, folder: Path) -> str:
    """Write the files of the model's form to `folder` and name the form."""
    columns, estimator = opened(native)
    if type(estimator).__name__ == "CalibratedClassifierCV":
        parts = [
            _calibrated_part(columns, one, folder, f"part_{place}")
            for place, one in enumerate(estimator.calibrated_classifiers_)
        ]
        _write(folder, CALIBRATED, parts)
        return "calibrated"
    return scored(columns, estimator, folder)


def _calibrated_part(columns: list[Column], one: Any, folder: Path, name: str) -> dict[str, Any]:
    """A model and a curve for each class, or that of the second of two; curves read the margin
    where there is one.
    """
    if one.method not in ("sigmoid", "isotonic"):
        message = f"calibration by {one.method} has no compiled form"
        raise NotCompiled(message)
    if len(one.estimator.classes_) != len(one.classes):
        message = "calibration where a fold lacks a class has no compiled form"
        raise NotCompiled(message)
    columns, estimator = last_step(columns, one.estimator)
    if one.method == "isotonic" and _adds_float32(estimator):
        message = "isotonic calibration of scores in float32 has no compiled form"
        raise NotCompiled(message)
    made = folder / name / "model"
    made.mkdir(parents=True)
    form = scored(columns, estimator, made, is_margin=hasattr(estimator, "decision_function"))
    curves = [_curve(curve, one.method) for curve in one.calibrators]
    part = {"folder": name, "form": form}
    return {**part, "curves": curves} if len(curves) > 1 else {**part, **curves[0]}


def _adds_float32(estimator: Any) -> bool:
    """Compiled scores are then a little apart, and at a step of a curve much is made of that."""
    ensemble = ensemble_of(estimator)
    return ensemble is not None and ensemble.adds_float32


def _curve(curve: Any, method: str) -> dict[str, Any]:
    if method == "sigmoid":
        return {"sigmoid": [float(curve.a_), float(curve.b_)]}
    return {"isotonic": [curve.X_thresholds_.tolist(), curve.y_thresholds_.tolist()]}


def scored(columns: list[Column], estimator: Any, folder: Path, *, is_margin: bool = False) -> str:
    """Write a preparation and a scorer, of the margin before any link with `is_margin`."""
    booster = lightgbm_of(estimator)
    if booster is not None:
        _check_lightgbm(booster)
        text = booster.model_to_string()
        (folder / TREES).write_text(_without_link(text) if is_margin else text)
        _write(folder, PREPARATION, plan_of(columns, is_finite=False))
        return "lightgbm"
    ensemble = ensemble_of(estimator)
    if ensemble is not None:
        ensemble = replace(ensemble, objective="") if is_margin else ensemble
        (folder / TREES).write_text(_text(ensemble, len(columns)))
        columns = _with_categories(columns, ensemble)
        if ensemble.reads_float32:
            columns = [one.then("float32") for one in columns]
        if ensemble.is_bounded and not ensemble.is_finite:
            columns = [one.then("no_infinity") for one in columns]
        _write(folder, PREPARATION, plan_of(columns, is_finite=ensemble.is_finite))
        return "lightgbm"
    linear = linear_of(estimator)
    if linear is not None:
        _write(folder, LINEAR, {**linear, "link": "identity"} if is_margin else linear)
        _write(folder, PREPARATION, plan_of(columns, is_finite=True))
        return "linear"
    message = f"{type(estimator).__name__} has no compiled form"
    raise NotCompiled(message)


def _with_categories(columns: list[Column], ensemble: Ensemble) -> list[Column]:
    """What trees that ask for categories are given: numbers of texts, and one for their nulls."""
    if ensemble.encoder is not None:
        pairs = list(zip(columns, ensemble.encoded, strict=True))
        texts = transformed(ensemble.encoder, [one for one, is_encoded in pairs if is_encoded])
        columns = [*texts, *(one for one, is_encoded in pairs if not is_encoded)]
    return [
        one.as_category() if place in ensemble.categorical else one
        for place, one in enumerate(columns)
    ]


def as_onnx(native: NativeModel, folder: Path, kind: str) -> str:
    """Write the last step as ONNX, behind the same preparation."""
    columns, estimator = opened(native)
    if kind == FLOAT:
        columns = [one.then("float32") for one in columns]
    write_onnx(estimator, len(columns), kind, folder / ONNX)
    _write(folder, PREPARATION, plan_of(columns, is_finite=not _takes_nan(estimator)))
    return "onnx"


def may_be_onnx(native: NativeModel) -> bool:
    """Whether the last step is an estimator of scikit-learn, and all before it is understood."""
    try:
        columns, estimator = opened(native)
        plan_of(columns, is_finite=False)
    except NotCompiled:
        return False
    return type(estimator).__module__.startswith("sklearn.")


def _takes_nan(estimator: Any) -> bool:
    return bool(estimator.__sklearn_tags__().input_tags.allow_nan)


def opened(native: NativeModel) -> tuple[list[Column], Any]:
    """What reaches the last step of a pipeline, and that step; of other models, themselves."""
    return last_step(columns_of(native.spec.inputs), native.model)


def last_step(columns: list[Column], model: Any) -> tuple[list[Column], Any]:
    """What reaches the estimator inside `model`, and that estimator."""
    while type(model).__module__.startswith("sklearn."):
        match type(model).__name__:
            case "Pipeline":
                for _, step in model.steps[:-1]:
                    columns = transformed(step, columns)
                model = model.steps[-1][1]
            case (
                "GridSearchCV"
                | "RandomizedSearchCV"
                | "HalvingGridSearchCV"
                | "HalvingRandomSearchCV"
            ):
                model = model.best_estimator_
            case "FixedThresholdClassifier" | "TunedThresholdClassifierCV":
                model = model.estimator_
            case "FrozenEstimator":
                model = model.estimator
            case _:
                break
    return columns, model


def columns_of(inputs: Inputs) -> list[Column]:
    """The features as the model is given them."""
    return [
        Column(source=place)
        if name not in inputs.texts
        else Column(source=place, codes=_codes(inputs, name))
        if inputs.form == CODES
        else Column(source=place, raw=True)
        for place, name in enumerate(inputs.names)
    ]


def _codes(inputs: Inputs, name: str) -> dict[Any, float | None]:
    codes = {text: float(code) for code, text in enumerate(inputs.categories[name])}
    return {**codes, None: NAN}


def lightgbm_of(model: Any) -> Any:
    """The LightGBM booster that `model` is or holds, otherwise None."""
    if type(model).__module__.partition(".")[0] != "lightgbm":
        return None
    return getattr(model, "booster_", model)


def _without_link(text: str) -> str:
    """The model file of LightGBM whose answer is the sum of its trees."""
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("objective=")
    )


def _check_lightgbm(booster: Any) -> None:
    if getattr(booster, "pandas_categorical", None):
        message = "categories that LightGBM keeps from pandas have no compiled form; use an encoder"
        raise NotCompiled(message)


def _text(ensemble: Ensemble, features: int) -> str:
    return model_text(
        ensemble.trees,
        features=features,
        outputs=ensemble.outputs,
        objective=ensemble.objective,
        mean=ensemble.mean,
        adds_float32=ensemble.adds_float32,
    )


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content, allow_nan=False))


def main(run: Path, folder: Path, kind: str = "") -> None:
    folder.mkdir(parents=True)
    answer: dict[str, Any] = {"form": "", "reason": "", "onnx": False}
    if (run / "native" / MLFLOW).exists():
        answer["reason"] = "an MLflow model runs its own code"
    else:
        native = load(run / "native", run / "code")
        try:
            answer["form"] = as_onnx(native, folder, kind) if kind else compiled(native, folder)
        except NotCompiled as error:
            answer["reason"], answer["onnx"] = str(error), may_be_onnx(native)
        except Exception as error:  # noqa: BLE001 - libraries have more shapes than are known here
            answer["reason"] = f"it cannot be compiled: {type(error).__name__}: {error}"[:300]
    print(json.dumps(answer))  # noqa: T201 - how the caller gets it


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
