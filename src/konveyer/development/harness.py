"""Trains a model in the model's own environment. Started by `training`, as a script.

Needs NumPy and PyArrow beside the project's own requirements, and nothing of Konveyer but the file
`preparation.py`, whose path it is given. Reads `request.json` in the folder named on the command
line and writes `model.txt` and `result.json` there.
"""

import importlib.util
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GOLDEN_CASES = 200


def module_at(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - a path to a file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts_in(table: pa.Table, names: list[str]) -> dict[str, list[str]]:
    """The categories of each text column: its distinct values, sorted."""
    return {
        name: sorted(text for text in table[name].unique().to_pylist() if text is not None)
        for name in names
        if pa.types.is_string(table.schema.field(name).type)
    }


def as_matrix(preparation: Any, table: pa.Table) -> Any:
    """The columns of `table` as the model reads them; a column at a time."""
    columns = []
    for name in preparation.names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type):
            encoded = column.dictionary_encode()
            codes = np.append(preparation.codes(name, encoded.dictionary.to_pylist()), np.nan)
            columns.append(codes[encoded.indices.fill_null(-1).to_numpy()])
            continue
        if pa.types.is_decimal(column.type):
            columns.append(decimals_in(column))
            continue
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns.append(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return np.ascontiguousarray(np.column_stack(columns))


def decimals_in(column: pa.Array) -> Any:
    """The nearest float64 of each, as a serving node makes it; Arrow's cast may be one off."""
    encoded = column.dictionary_encode()
    nearest = [float(value) for value in encoded.dictionary.to_pylist()]
    return np.append(nearest, np.nan)[encoded.indices.fill_null(-1).to_numpy()]


def area_under_curve(labels: Any, scores: Any) -> float:
    """The probability that a positive scores above a negative; ties count half (Mann-Whitney)."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        message = "the out-of-time part has labels of one kind only; move [split] out_of_time"
        raise ValueError(message)
    return float(
        (ranks[labels == 1].sum() - positives * (positives + 1) / 2) / positives / negatives
    )


def plain(value: Any) -> Any:
    """A feature value as JSON: instants as microseconds, like a serving node reads them, and
    decimals as what the model is given.
    """
    if isinstance(value, Decimal):
        return float(value)
    return int(value.timestamp() * 1_000_000) if hasattr(value, "timestamp") else value


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    preparation_file = module_at("preparation", Path(request["preparation"]))
    sys.path.insert(0, str(folder / "code"))
    model = module_at("model", folder / "code" / "model.py")
    table = pq.read_table(request["data"])
    at_us = table[request["timestamp"]].cast(pa.int64()).to_numpy()
    labels = table[request["label"]].to_numpy().astype(np.int64)
    train, test = at_us < request["split_us"], at_us >= request["split_us"]
    if not train.any() or not test.any():
        message = "every label is on one side of [split] out_of_time; move it"
        raise ValueError(message)

    def fitted(names: list[str]) -> tuple[Any, Any, Any]:
        categories = texts_in(table.filter(pa.array(train)), names)
        preparation = preparation_file.Preparation(names, categories)
        matrix = as_matrix(preparation, table)
        booster = model.train(
            matrix[train], labels[train], names, preparation.categorical, request["parameters"]
        )
        return booster, matrix, categories

    names = request["features"]
    booster, matrix, categories = fitted(names)
    scores = booster.predict(matrix[test])
    plain_names = [name for name in names if name not in request["windowed"]]
    metrics = {
        "auc": area_under_curve(labels[test], scores),
        "label_rate": float(labels[test].mean()),
        "auc_label_rate": 0.5,
        "train_rows": float(train.sum()),
        "test_rows": float(test.sum()),
    }
    if plain_names and plain_names != names:
        other, other_matrix, _ = fitted(plain_names)
        metrics["auc_without_windows"] = area_under_curve(
            labels[test], other.predict(other_matrix[test])
        )
    rows = np.linspace(0, len(table) - 1, min(GOLDEN_CASES, len(table))).astype(int)
    columns = [table[name].take(pa.array(rows)).to_pylist() for name in names]
    golden = [
        {"features": [plain(value) for value in values], "outputs": [float(score)]}
        for values, score in zip(
            zip(*columns, strict=True), booster.predict(matrix[rows]), strict=True
        )
    ]
    booster.save_model(str(folder / "model.txt"))
    result = {"metrics": metrics, "categories": categories, "golden": golden}
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
