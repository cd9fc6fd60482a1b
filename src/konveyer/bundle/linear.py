"""A linear model as a matrix product and a link."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from konveyer.bundle.errors import ModelUnusable
from konveyer.bundle.steps import Matrix


class LinearScorer:
    """Sums of numbers behind a link: `identity`, `sigmoid`, `softmax` or `exp`. Thread-safe."""

    def __init__(self, model: Mapping[str, Any], features: int) -> None:
        coefficients = np.array(model["coefficients"], np.float64)
        if coefficients.shape[1] != features:
            raise ModelUnusable(
                f"The model reads {coefficients.shape[1]} numbers, its preparation makes "
                f"{features}.",
                hint="train and submit the model again",
            )
        self._factors = np.ascontiguousarray(coefficients.T)
        self._intercepts = np.array(model["intercepts"], np.float64)
        self._link = model["link"]
        self.outputs = len(self._intercepts)

    def score(self, rows: Matrix) -> Matrix:
        with np.errstate(all="ignore"):
            sums: Matrix = rows @ self._factors + self._intercepts
            return self._linked(sums)

    def _linked(self, sums: Matrix) -> Matrix:
        result: Matrix = sums
        match self._link:
            case "sigmoid":
                result = np.exp(-np.logaddexp(0.0, -sums))
            case "softmax":
                shares = np.exp(sums - sums.max(axis=1, keepdims=True))
                result = shares / shares.sum(axis=1, keepdims=True)
            case "exp":
                result = np.exp(sums)
        return result
