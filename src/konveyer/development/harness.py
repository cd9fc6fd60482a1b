"""Trains a model in the model's own environment. Started by `training`, through `native/run.py`.

Needs NumPy and PyArrow beside the project's own requirements (and pandas for `input = "frame"`).
Reads `request.json` in the folder named on the command line and writes `native/`, `result.json`
and, of a LightGBM model, `model.txt` there.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.bundle.native.inputs import CODES, Inputs
from konveyer.bundle.native.model import (
    BINARY,
    REGRESSION,
    NativeModel,
    NativeSpec,
    columns_of,
    returned,
    save,
)
from konveyer.bundle.native.preparation import Preparation
from konveyer.development.golden import edge_rows, golden_cases, real_rows
from konveyer.development.measures import MAIN, baseline, measured

NATIVE, MODEL = "native", "model.txt"


def module_at(name: str, path: Path) -> Any:
    """Under `name` in `sys.modules`, so that a pickle can name what is in it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - a path to a file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def texts_in(table: pa.Table, names: list[str]) -> dict[str, list[str]]:
    """The categories of each text column: its distinct values, sorted."""
    return {
        name: sorted(text for text in table[name].unique().to_pylist() if text is not None)
        for name in names
        if pa.types.is_string(table.schema.field(name).type)
    }


def given_to_train(inputs: Inputs, table: pa.Table) -> Any:
    """All rows of `table` as the model reads them; a column at a time."""
    if inputs.form == CODES:
        preparation = Preparation(inputs.names, inputs.categories)
        columns = [as_codes(preparation, table, name) for name in inputs.names]
        return np.ascontiguousarray(np.column_stack(columns))
    return inputs.frame(
        {
            name: table[name].to_pylist() if name in inputs.texts else as_numbers(table[name])
            for name in inputs.names
        }
    )


def as_codes(preparation: Preparation, table: pa.Table, name: str) -> Any:
    column = table[name].combine_chunks()
    if not pa.types.is_string(column.type):
        return as_numbers(table[name])
    encoded = column.dictionary_encode()
    codes = np.append(preparation.codes(name, encoded.dictionary.to_pylist()), np.nan)
    return codes[encoded.indices.fill_null(-1).to_numpy()]


def as_numbers(column: pa.ChunkedArray) -> Any:
    array = column.combine_chunks()
    if pa.types.is_decimal(array.type):
        return decimals_in(array)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def decimals_in(column: pa.Array) -> Any:
    """The nearest float64 of each, as a serving node makes it; Arrow's cast may be one off."""
    encoded = column.dictionary_encode()
    nearest = [float(value) for value in encoded.dictionary.to_pylist()]
    return np.append(nearest, np.nan)[encoded.indices.fill_null(-1).to_numpy()]


def labels_in(column: pa.ChunkedArray, task: str) -> tuple[Any, list[str]]:
    """Numbers of a regression; otherwise codes, and the classes in their order."""
    if task == REGRESSION:
        return as_numbers(column), []
    if task == BINARY:
        return column.to_numpy().astype(np.int64), ["0", "1"]
    classes = sorted(column.unique().to_pylist())
    places = {value: code for code, value in enumerate(classes)}
    codes = np.array([places[value] for value in column.to_pylist()], dtype=np.int64)
    return codes, [str(value) for value in classes]


class Trainer:
    """One request: the rows, and which of them teach."""

    def __init__(self, request: dict[str, Any], train: Any, scratch: Path) -> None:
        self._request, self._train, self._scratch = request, train, scratch
        table = pq.read_table(request["data"])
        self.table = table
        at_us = table[request["timestamp"]].cast(pa.int64()).to_numpy()
        self.learned, self.kept = at_us < request["split_us"], at_us >= request["split_us"]
        if not self.learned.any() or not self.kept.any():
            message = "every label is on one side of [split] out_of_time; move it"
            raise ValueError(message)
        self.labels, self.classes = labels_in(table[request["label"]], request["task"])

    def fitted(self, names: list[str]) -> tuple[NativeModel, Any]:
        """The model of these features, and what it says of the rows kept from it."""
        request = self._request
        texts = texts_in(self.table.filter(pa.array(self.learned)), names)
        inputs = Inputs(
            form=request["input"], names=tuple(names), texts=frozenset(texts), categories=texts
        )
        given = given_to_train(inputs, self.table)
        made = self._train(
            given[self.learned],
            self.labels[self.learned],
            names,
            inputs.categorical,
            request["parameters"],
        )
        spec = NativeSpec(task=request["task"], classes=tuple(self.classes), inputs=inputs)
        native = returned(made, spec, Path(tempfile.mkdtemp(dir=self._scratch)))
        return native, columns_of(native.answers(given[self.kept]))

    def metrics(self, answers: Any) -> dict[str, float]:
        return measured(self._request["task"], self.labels[self.kept], answers)


def lightgbm_of(model: Any) -> Any:
    """The LightGBM booster that `model` is or holds, otherwise None."""
    if type(model).__module__.partition(".")[0] != "lightgbm":
        return None
    return getattr(model, "booster_", model)


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    sys.path.insert(0, str(folder / "code"))
    with tempfile.TemporaryDirectory() as scratch:
        train = module_at("model", folder / "code" / "model.py").train
        _train(Trainer(request, train, Path(scratch)), request, folder)


def _train(trainer: Trainer, request: dict[str, Any], folder: Path) -> None:
    task, names = request["task"], request["features"]
    native, (named, answers) = trainer.fitted(names)
    labels = trainer.labels
    metrics = {
        **trainer.metrics(answers),
        **baseline(task, labels[trainer.learned], labels[trainer.kept], len(trainer.classes)),
        "train_rows": float(trainer.learned.sum()),
        "test_rows": float(trainer.kept.sum()),
    }
    plain_names = [name for name in names if name not in request["windowed"]]
    if plain_names and plain_names != names:
        _, (_, without) = trainer.fitted(plain_names)
        main_metric = MAIN[task]
        found = trainer.metrics(without)
        if main_metric in found:
            metrics[f"{main_metric}_without_windows"] = found[main_metric]
    _check_finite(metrics)
    save(native, folder / NATIVE)
    booster = lightgbm_of(native.model)
    if booster is not None:
        booster.save_model(str(folder / MODEL))
    real = real_rows(trainer.table, names)
    rows = [*real, *edge_rows(trainer.table, names, real)]
    result = {
        "metrics": metrics,
        "categories": native.spec.inputs.categories,
        "outputs": output_names(named, answers, trainer.classes, task),
        "texts": [bool(isinstance(value, str)) for value in answers[0].tolist()],
        "golden": {"cases": golden_cases(native, rows), "real": len(real)},
    }
    (folder / "result.json").write_text(json.dumps(result, allow_nan=False))


def _check_finite(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if not np.isfinite(value):
            message = (
                f"the metric '{name}' is {value}: an answer of the model, or a label, is missing, "
                "infinite or too large"
            )
            raise ValueError(message)


def output_names(named: list[str], answers: Any, classes: list[str], task: str) -> list[str]:
    """A single output is `prediction`; several are named by the model, or by their classes."""
    width = answers.shape[1]
    if width == 1:
        return ["prediction"]
    if len(named) == width:
        return named
    if task != REGRESSION and width == len(classes):
        return classes
    return [f"output_{place}" for place in range(width)]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
