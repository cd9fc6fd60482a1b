"""Trees as a node scores them, against LightGBM's own library."""

import re
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest

from konveyer.bundle.forest import ForestScorer, UnknownTrees
from konveyer.bundle.lightgbm import LightGBMScorer

Matrix = npt.NDArray[np.float64]
NUMBERS, TEXTS, CATEGORIES = 6, 2, 70
WIDTH = NUMBERS + TEXTS
EXTREMES = [
    *(0.0, -0.0, 1e-35, -1e-35, 1.0000001e-35, 1e-36, 5e-324, 1e300, -1e300),
    *(np.inf, -np.inf, np.nan, 2147483647.0, 2147483648.0, -1.0, -0.5, 0.5, CATEGORIES - 0.5),
]
CASES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "sigmoid": {"objective": "binary", "sigmoid": 0.7, "is_unbalance": True},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "one against all": {"objective": "multiclassova", "num_class": 3, "sigmoid": 1.3},
    "regression": {"objective": "regression"},
    "l1": {"objective": "regression_l1"},
    "huber": {"objective": "huber"},
    "fair": {"objective": "fair"},
    "quantile": {"objective": "quantile", "alpha": 0.9},
    "poisson": {"objective": "poisson"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "cross entropy": {"objective": "cross_entropy"},
    "zero is missing": {"objective": "binary", "zero_as_missing": True},
    "nothing is missing": {"objective": "binary", "use_missing": False},
    "forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "dart": {"objective": "regression", "boosting": "dart"},
    "one leaf": {"objective": "binary", "min_data_in_leaf": 10_000},
    "one category against others": {"objective": "binary", "max_cat_to_onehot": 100},
    "deep": {"objective": "regression", "num_leaves": 500, "min_data_in_leaf": 1},
}


def rows_of(rng: np.random.Generator, count: int) -> Matrix:
    """Numbers, category codes (some unknown), nulls, zeros and extremes."""
    rows = rng.normal(size=(count, WIDTH))
    rows[:, NUMBERS:] = rng.integers(-1, CATEGORIES + 40, (count, TEXTS))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[rng.random(rows.shape) < 0.1] = 0.0
    return rows


def trained(path: Path, rounds: int = 21, **parameters: Any) -> Path:
    rng = np.random.default_rng(len(str(parameters)))
    rows = rows_of(rng, 1500)
    codes = np.nan_to_num(rows[:, NUMBERS])
    signal = np.nan_to_num(rows[:, 0]) * np.nan_to_num(rows[:, 1]) + np.sin(codes)
    match parameters["objective"]:
        case "binary" | "cross_entropy":
            labels = (signal > 0).astype(float)
        case "multiclass" | "multiclassova":
            labels = np.digitize(signal, [-0.5, 0.5]).astype(float)
        case "poisson" | "gamma" | "tweedie":
            labels = np.exp(signal)
        case _:
            labels = signal
    data = lgb.Dataset(rows, labels, categorical_feature=[*range(NUMBERS, WIDTH)])
    every = {"verbosity": -1, "num_threads": 1, "seed": 3, "min_data_in_leaf": 5}
    lgb.train(every | parameters, data, num_boost_round=rounds).save_model(str(path))
    return path


def thresholds_of(path: Path) -> list[float]:
    lines = re.findall(r"^threshold=(.*)$", path.read_text(), flags=re.MULTILINE)
    return [float(value) for line in lines for value in line.split()] or [0.0]


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_lightgbm_to_the_last_bit(name: str, tmp_path: Path) -> None:
    path = trained(tmp_path / "model.txt", **CASES[name])
    ours, theirs = ForestScorer(path, WIDTH), LightGBMScorer(path, WIDTH)
    assert ours.outputs == theirs.outputs
    rng = np.random.default_rng(1)
    rows = rows_of(rng, 600)
    rows[:400][rng.random((400, WIDTH)) < 0.3] = 0.0
    extreme = rng.choice(EXTREMES, (400, WIDTH))
    on_the_edge = rng.choice(thresholds_of(path), (400, WIDTH))
    rows = np.ascontiguousarray(np.concatenate([rows, extreme, on_the_edge]))
    expected = theirs.score(rows)
    assert ours.score(rows).tobytes() == expected.tobytes()
    for number in range(0, len(rows), 7):
        one = rows[number : number + 1]
        assert ours.score(one).tobytes() == theirs.score(one).tobytes()
    assert len(np.unique(expected)) > 1 or name == "one leaf"


@pytest.mark.parametrize("rounds", [1, 7, 8, 9, 40])
def test_any_number_of_trees(rounds: int, tmp_path: Path) -> None:
    path = trained(tmp_path / "model.txt", rounds, objective="multiclass", num_class=3)
    rows = rows_of(np.random.default_rng(2), 100)
    expected = LightGBMScorer(path, WIDTH).score(rows)
    assert ForestScorer(path, WIDTH).score(rows).tobytes() == expected.tobytes()


def test_very_many_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 700))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    data = lgb.Dataset(rows, np.nan_to_num(rows[:, 650] + rows[:, 3]))
    path = tmp_path / "model.txt"
    parameters = {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    lgb.train(parameters, data, num_boost_round=10).save_model(str(path))
    expected = LightGBMScorer(path, 700).score(rows)
    assert ForestScorer(path, 700).score(rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "regression", "linear_tree": True},
        {"objective": "regression", "reg_sqrt": True},
        {"objective": "cross_entropy_lambda"},
    ],
    ids=lambda parameters: [*parameters][-1],
)
def test_what_only_lightgbm_knows_is_left_to_it(parameters: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(300, 3))
    data = lgb.Dataset(rows, (rows[:, 0] > 0).astype(float))
    path = tmp_path / "model.txt"
    lgb.train({"verbosity": -1} | parameters, data, num_boost_round=3).save_model(str(path))
    with pytest.raises(UnknownTrees):
        ForestScorer(path, 3)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("left_child", "900 -1"),
        ("left_child", "-900 -1"),
        ("right_child", "0 -2"),
        ("split_feature", "8 0"),
        ("split_feature", "-1 0"),
        ("threshold", "0.5"),
        ("leaf_value", "1 2"),
        ("cat_boundaries", "0 900"),
        ("num_tree_per_iteration", "0"),
    ],
)
def test_a_tree_that_leads_out_of_itself_is_refused(name: str, values: str, tmp_path: Path) -> None:
    path = trained(tmp_path / "model.txt", objective="regression", num_leaves=3)
    text = path.read_text()
    assert f"\n{name}=" in text
    path.write_text(re.sub(rf"^{name}=.*$", f"{name}={values}", text, count=1, flags=re.MULTILINE))
    with pytest.raises(ValueError, match=r"a (tree|model)"):
        ForestScorer(path, WIDTH)
