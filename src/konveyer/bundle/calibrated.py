"""Calibrated models: the mean of several, each of whose scores a learned curve corrects."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import numpy as np

from konveyer.bundle.errors import ModelUnusable
from konveyer.bundle.plan import Columns, Matrix
from konveyer.feature_store.online.codec import Value

Calibration = Callable[[Matrix], Matrix]


class CalibratedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One of the models, in a folder of its own, and its curve: Platt's sigmoid, or steps."""

    folder: str
    form: str
    sigmoid: tuple[float, float] | None = None
    isotonic: tuple[list[float], list[float]] | None = None


class _Scores(Protocol):
    outputs: int

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix: ...

    def scores_of(self, columns: Columns) -> Matrix: ...


class Calibrated:
    """The probability of the positive class. Thread-safe."""

    outputs = 1

    def __init__(self, parts: Sequence[tuple[_Scores, Calibration]]) -> None:
        self._parts = parts

    def scores(self, rows: Sequence[Sequence[Value]]) -> Matrix:
        return self._mean([calibrated(model.scores(rows)) for model, calibrated in self._parts])

    def scores_of(self, columns: Columns) -> Matrix:
        parts = self._parts
        return self._mean([calibrated(model.scores_of(columns)) for model, calibrated in parts])

    def _mean(self, probabilities: Sequence[Matrix]) -> Matrix:
        mean: Matrix = np.mean(probabilities, axis=0)
        return mean


def calibration_of(part: CalibratedPart) -> Calibration:
    if part.sigmoid is not None:
        slope, shift = part.sigmoid
        return lambda scores: np.exp(-np.logaddexp(0.0, slope * scores + shift))
    if part.isotonic is not None:
        given, wanted = (np.array(values) for values in part.isotonic)
        return lambda scores: np.interp(scores, given, wanted)
    raise ModelUnusable(
        "A calibrated model has a part without a curve.", hint="train and submit the model again"
    )
