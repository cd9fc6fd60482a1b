"""Calibrated models: the mean of several, each of whose scores a learned curve corrects."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
import numpy as np

from konveyer.bundle.errors import ModelUnusable
from konveyer.bundle.plan import Columns
from konveyer.bundle.steps import Matrix
from konveyer.feature_store.online.codec import Value

Calibration = Callable[[Matrix], Matrix]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """From a score to a probability: Platt's sigmoid, or steps."""

    sigmoid: tuple[float, float] | None = None
    isotonic: tuple[list[float], list[float]] | None = None


class CalibratedPart(Curve, frozen=True, kw_only=True):
    """One of the models, in a folder of its own. It is a curve itself, that of the second of two
    classes; of more, each has its own in `curves`.
    """

    folder: str
    form: str
    curves: list[Curve] = []


class _Scores(Protocol):
    outputs: int

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix: ...

    def scores_of(self, columns: Columns) -> Matrix: ...


class Calibrated:
    """The probability of the second of two classes, or those of all. Thread-safe."""

    def __init__(self, parts: Sequence[tuple[_Scores, Calibration]]) -> None:
        self._parts = parts
        self.outputs = parts[0][0].outputs

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix:
        return self._mean([calibrated(model.scores(rows)) for model, calibrated in self._parts])

    def scores_of(self, columns: Columns) -> Matrix:
        parts = self._parts
        return self._mean([calibrated(model.scores_of(columns)) for model, calibrated in parts])

    def _mean(self, probabilities: Sequence[Matrix]) -> Matrix:
        mean: Matrix = np.mean(probabilities, axis=0)
        return mean


def calibration_of(part: CalibratedPart) -> Calibration:
    return (
        _shares([_calibration(one) for one in part.curves]) if part.curves else _calibration(part)
    )


def _shares(curves: Sequence[Calibration]) -> Calibration:
    """Each class by its own curve, then divided so that they sum to 1; alike where all are 0."""

    def calibrated(scores: Matrix) -> Matrix:
        each = np.column_stack([curve(scores[:, k]) for k, curve in enumerate(curves)])
        total = each.sum(axis=1, keepdims=True)
        alike = np.full_like(each, 1 / len(curves))
        shares: Matrix = np.divide(each, total, out=alike, where=total != 0)
        return shares

    return calibrated


def _calibration(curve: Curve) -> Calibration:
    if curve.sigmoid is not None:
        return partial(_sigmoid, *curve.sigmoid)
    if curve.isotonic is not None:
        given, wanted = (np.array(values) for values in curve.isotonic)
        return lambda scores: np.interp(scores, given, wanted)
    raise ModelUnusable(
        "A calibrated model has a part without a curve.", hint="train and submit the model again"
    )


def _sigmoid(slope: float, shift: float, scores: Matrix) -> Matrix:
    """As scikit-learn has it: 0 where the power is beyond float64, though it could be told.

    Of several classes that are all so, each then gets the same share.
    """
    with np.errstate(over="ignore"):
        shares: Matrix = 1.0 / (1.0 + np.exp(slope * scores + shift))
    return shares
