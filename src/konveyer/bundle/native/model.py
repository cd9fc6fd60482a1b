"""The object that `train()` returned: how it is kept, loaded and asked. Never runs in a node."""

import json
import pickle
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from konveyer.bundle.native.inputs import Inputs

BINARY, MULTICLASS, REGRESSION = "binary", "multiclass", "regression"
PICKLE, MLFLOW, SPEC = "model.pkl", "mlflow", "native.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSpec:
    """How a kept object is asked. `classes` are the labels, in the order of their codes."""

    task: str
    classes: tuple[str, ...]
    inputs: Inputs


class NativeModel:
    """A model as its library has it; `kept` is the folder of an MLflow model."""

    def __init__(self, model: Any, spec: NativeSpec, kept: Path | None = None) -> None:
        self.model, self.spec, self.kept = model, spec, kept

    def predict(self, rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """A list of outputs for each row of feature values."""
        given = self.spec.inputs.of_rows(rows)
        answers: list[list[Any]] = columns_of(self.answers(given))[1].tolist()
        return answers

    def answers(self, given: Any) -> Any:
        """What the library says of its own kind of input: an array, or a frame.

        Of a binary model it is the probability of the positive class.
        """
        model = self.model
        match type(model).__module__.partition(".")[0], type(model).__name__:
            case "xgboost", "Booster":
                import xgboost

                data = xgboost.DMatrix(given, feature_names=model.feature_names)
                return model.predict(data, iteration_range=(0, _best(model)))
            case "catboost", "CatBoost" if self.spec.task != REGRESSION:
                return self._one(model.predict(given, prediction_type="Probability"))
        if self.spec.task == REGRESSION:
            return model.predict(given)
        if hasattr(model, "predict_proba"):
            return self._one(model.predict_proba(given))
        if self.spec.task == BINARY and hasattr(model, "decision_function"):
            return model.decision_function(given)
        return model.predict(given)

    def _one(self, probabilities: Any) -> Any:
        is_pair = self.spec.task == BINARY and np.ndim(probabilities) == 2
        return np.asarray(probabilities)[:, -1] if is_pair else probabilities


def columns_of(answers: Any) -> tuple[list[str], Any]:
    """The names that the model gives its outputs, if it does, and an array (rows, outputs)."""
    names = [str(name) for name in getattr(answers, "columns", ())]
    array = np.asarray(answers)
    return names, array.reshape(len(array), -1)


def _best(booster: Any) -> int:
    """The iterations that XGBoost's own wrapper uses: up to the best one, otherwise all (0)."""
    best = booster.attr("best_iteration")
    return 0 if best is None else int(best) + 1


def modules_loaded() -> list[str]:
    """The modules of installed libraries that this process has imported."""
    places = tuple(path for path in sys.path if path.endswith("site-packages"))
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if places and (getattr(module, "__file__", None) or "").startswith(places)
    )


def returned(made: Any, spec: NativeSpec, scratch: Path) -> NativeModel:
    """What `train()` returned, ready to be asked. An MLflow model may be named by its URI.

    MLflow's models are kept as MLflow's own folder, in `scratch` until `save`; one that was loaded
    is fetched again from where it was logged.
    """
    if isinstance(made, str | Path):
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(str(made), dst_path=str(scratch)))
        return NativeModel(mlflow.pyfunc.load_model(str(folder)), spec, folder)
    if any(base.__module__.startswith("mlflow.pyfunc") for base in type(made).__mro__):
        import mlflow

        if not isinstance(made, mlflow.pyfunc.PythonModel):
            return returned(_logged_at(made), spec, scratch)
        folder = scratch / MLFLOW
        mlflow.pyfunc.save_model(folder, python_model=made, pip_requirements=[])
        return NativeModel(mlflow.pyfunc.load_model(str(folder)), spec, folder)
    return NativeModel(made, spec)


def _logged_at(loaded: Any) -> str:
    """The URI of a model that MLflow loaded."""
    about: Any = getattr(loaded, "metadata", None)
    if getattr(about, "model_id", None):
        return f"models:/{about.model_id}"
    if getattr(about, "run_id", None) and about.artifact_path:
        return f"runs:/{about.run_id}/{about.artifact_path}"
    message = "return the URI of the MLflow model, such as runs:/RUN/model, from train()"
    raise TypeError(message)


def save(native: NativeModel, folder: Path) -> None:
    """Keep the model in `folder`, so that `load` gives it again."""
    folder.mkdir()
    described = {**asdict(native.spec), "modules": modules_loaded()}
    (folder / SPEC).write_text(json.dumps(described, default=sorted))
    if native.kept is not None:
        shutil.copytree(native.kept, folder / MLFLOW)
        return
    try:
        content = pickle.dumps(native.model, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        if find_spec("cloudpickle") is None:
            raise
        import cloudpickle

        content = cloudpickle.dumps(native.model, protocol=5)
    (folder / PICKLE).write_bytes(content)


def load_spec(folder: Path) -> NativeSpec:
    content = json.loads((folder / SPEC).read_text())
    inputs = content["inputs"]
    return NativeSpec(
        task=content["task"],
        classes=tuple(content["classes"]),
        inputs=Inputs(
            form=inputs["form"],
            names=tuple(inputs["names"]),
            texts=frozenset(inputs["texts"]),
            categories=inputs["categories"],
        ),
    )


def load(folder: Path, code: Path) -> NativeModel:
    """The kept model; `code` is the project that it was trained with, which a pickle may import.

    Runs the model's code: call it in a process of the model's own environment alone.
    """
    if str(code) not in sys.path:
        sys.path.insert(0, str(code))
    spec = load_spec(folder)
    if (folder / MLFLOW).is_dir():
        import mlflow

        return NativeModel(mlflow.pyfunc.load_model(str(folder / MLFLOW)), spec)
    with (folder / PICKLE).open("rb") as file:
        return NativeModel(pickle.load(file), spec)  # noqa: S301 - its digest was reviewed
