"""Training with numbers that are none: NaN, infinite, and metrics that are not finite."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.development.golden import REAL_ROWS
from konveyer.development.harness import main
from tests.unit.bundle.workbench import NAMES, lay_out

MODEL = """
import numpy as np

class Model:
    def predict(self, rows):
        return ANSWERS

def train(features, labels, names, categorical, parameters):
    return Model()
"""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the harness does to its own process is undone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "model", None)


def trained(folder: Path, answers: str, **columns: Any) -> dict[str, Any]:
    """The harness's result, when these columns are changed in the rows that it is given."""
    lay_out(folder, MODEL.replace("ANSWERS", answers), task="regression", given="codes")
    table = pq.read_table(folder / "data.parquet")
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, folder / "data.parquet")
    main(folder)
    text = (folder / "result.json").read_text()
    result: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    return result


def test_recorded_rows_have_null_for_nan_and_no_infinite_number(tmp_path: Path) -> None:
    rows = np.arange(1500)
    n0 = np.where(rows % 3 == 0, np.nan, rows.astype(float))
    n1 = np.select([rows % 5 == 0, rows % 7 == 0], [np.inf, -np.inf], 1.0)
    golden = trained(tmp_path / "run", "np.nan_to_num(rows[:, 0])", n0=n0, n1=n1)["golden"]
    real = [case["features"] for case in golden["cases"][: golden["real"]]]
    assert len(real) == REAL_ROWS
    assert 0.2 < sum(row[0] is None for row in real) / len(real) < 0.5
    assert {row[1] for row in real} == {1.0}


def test_rows_that_are_all_infinite_leave_those_at_the_edges(tmp_path: Path) -> None:
    infinite = np.full(1500, np.inf)
    golden = trained(tmp_path / "run", "np.nan_to_num(rows[:, 0])", n1=infinite)["golden"]
    assert golden["real"] == 0
    assert any(None in case["features"] for case in golden["cases"])
    assert all(len(case["features"]) == len(NAMES) for case in golden["cases"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    answers = f"np.full(len(rows), float('{value}'))"
    with pytest.raises(ValueError, match=rf"the metric 'rmse' is {value}: an answer of the model"):
        trained(tmp_path / "run", answers)
