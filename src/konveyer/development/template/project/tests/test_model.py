"""The model learns what it is shown, and learns the same twice."""

from typing import Any

import numpy as np

from model import train

PARAMETERS = {"rounds": 20, "seed": 7, "num_leaves": 7, "min_data_in_leaf": 20}
NAMES = ["signal", "noise", "band"]


def example(rows: int = 2_000) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, 3))
    features[:, 2] = rng.integers(0, 3, rows)
    features[::10, 1] = np.nan
    return features, (features[:, 0] > 0).astype(np.int64)


def test_it_finds_the_signal() -> None:
    features, labels = example()
    scores = train(features, labels, NAMES, [2], PARAMETERS).predict(features)
    assert scores[labels == 1].min() > scores[labels == 0].max()


def test_training_repeats() -> None:
    features, labels = example()
    first, second = (train(features, labels, NAMES, [2], PARAMETERS) for _ in range(2))
    assert first.model_to_string() == second.model_to_string()
