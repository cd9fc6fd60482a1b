"""The steps of a preparation: each is a few operations of NumPy over whole rows, in float64.

Those that a library would refuse a value in raise `ModelFailed`, as the model itself would.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from konveyer.bundle.errors import ModelFailed, ModelUnusable

Matrix = npt.NDArray[np.float64]
Step = Callable[[Matrix], Matrix]
Change = Callable[[Matrix], Any]
# How near to an end of what was seen scikit-learn takes a number for the end itself.
_NEAR = 1e-7
_LEAST_RANK = _NEAR - np.spacing(1)


def step_of(step: Mapping[str, Any]) -> Step:
    """The step that one of a plan's JSON objects describes."""
    columns = np.array(step["columns"], np.intp)
    match step["kind"]:
        case "take":
            return lambda matrix: matrix.take(columns, axis=1)
        case "float32":
            return _over(columns, lambda part: part.astype(np.float32))
        case "no_infinity":
            return _checked(columns, no_infinity)
        case "finite":
            return _checked(columns, finite)
        case "is_missing":
            return _over(columns, np.isnan)
        case "ufunc":
            return _over(columns, getattr(np, step["name"]))
    values = [np.array([float(value) for value in one]) for one in step["values"]]
    match step["kind"]:
        case "impute":
            fills = values[0]
            return lambda matrix: np.where(np.isnan(matrix), fills, matrix)
        case "shift_divide":
            shifts, scales = values
            return lambda matrix: (matrix - shifts) / scales
        case "multiply_add":
            factors, added = values
            return lambda matrix: matrix * factors + added
        case "clip":
            low, high = values
            return lambda matrix: np.clip(matrix, low, high)
        case "equals":
            wanted = values[0][columns]
            return _over(columns, lambda part: part == wanted)
        case "within":
            low, high = (one[columns] for one in values)
            return _over(columns, lambda part: (part >= low) & (part < high))
        case "power":
            powers = values[0][columns]
            return _over(columns, lambda part: yeo_johnson(part, powers))
        case "bins":
            return _each(columns, [_bin(edges) for edges in values])
        case "ranks":
            return _each(columns, [_rank(quantiles) for quantiles in values])
        case "scores":
            return _each(columns, [_score(quantiles) for quantiles in values])
        case "product":
            factors = np.array(values)
            return _beside(lambda matrix: matrix[:, columns] @ factors)
        case "terms":
            return _beside(_terms(columns, step["values"]))
    raise ModelUnusable(
        f"This Konveyer does not know the preparation step '{step['kind']}'.",
        hint="upgrade this Konveyer",
    )


def _over(columns: npt.NDArray[np.intp], change: Change) -> Step:
    """The step that changes some columns, or all without a copy of any."""

    def step(matrix: Matrix) -> Matrix:
        with np.errstate(all="ignore"):
            if len(columns) == matrix.shape[1]:
                return np.ascontiguousarray(change(matrix), dtype=np.float64)
            changed = matrix.copy()
            changed[:, columns] = change(matrix[:, columns])
            return changed

    return step


def _each(columns: npt.NDArray[np.intp], changes: Sequence[Change]) -> Step:
    """The step that changes each of `columns` in its own way."""

    def change(part: Matrix) -> Matrix:
        return np.column_stack([one(part[:, k]) for k, one in enumerate(changes)])

    return _over(columns, change)


def _beside(made: Change) -> Step:
    """The step that puts what is made of a matrix to its right."""

    def step(matrix: Matrix) -> Matrix:
        with np.errstate(all="ignore"):
            return np.concatenate([matrix, made(matrix)], axis=1)

    return step


def _checked(columns: npt.NDArray[np.intp], check: Step) -> Step:
    """The step that changes nothing, and raises for what some columns may not have."""

    def step(matrix: Matrix) -> Matrix:
        check(matrix if len(columns) == matrix.shape[1] else matrix[:, columns])
        return matrix

    return step


def finite(matrix: Matrix) -> Matrix:
    if not np.isfinite(matrix).all():
        raise ModelFailed(
            "The model takes no missing or infinite value, and a feature is one.",
            hint="impute it in the model's pipeline, and train again",
        )
    return matrix


def no_infinity(matrix: Matrix) -> Matrix:
    """A null passes."""
    if np.isinf(matrix).any():
        raise ModelFailed(
            "A feature is too large for the model.",
            hint="clip it in the model's pipeline, and train again",
        )
    return matrix


def yeo_johnson(numbers: Matrix, powers: Matrix) -> Matrix:
    """The transform of Yeo and Johnson (2000), a power for each column.

    >>> yeo_johnson(np.array([[3.0, -3.0]]), np.array([0.5, 1.5])).tolist()
    [[2.0, -2.0]]
    """
    is_negative = numbers < 0
    exponents = np.where(is_negative, 2.0 - powers, powers)
    is_zero = np.abs(exponents) < np.finfo(np.float64).eps
    exponents = np.where(is_zero, 1.0, exponents)
    logs = np.log1p(np.abs(numbers))
    raised = np.where(is_zero, logs, np.expm1(exponents * logs) / exponents)
    return np.where(is_negative, -raised, raised)


def _bin(edges: Matrix) -> Change:
    return lambda numbers: edges.searchsorted(numbers, side="right")


def _rank(quantiles: Matrix) -> Change:
    """The share of what was seen that is below: between that of the first and last equal number."""
    between = _between(quantiles)
    first, last = quantiles[0], quantiles[-1]

    def rank(numbers: Matrix) -> Matrix:
        inner = np.where(numbers == last, 1.0, between(numbers))
        return np.where(numbers == first, 0.0, inner)

    return rank


def _score(quantiles: Matrix) -> Change:
    """The number that has this rank in a normal distribution; not beyond 5.2."""
    between = _between(quantiles)
    first, last = quantiles[0], quantiles[-1]
    inverse = np.frompyfunc(NormalDist().inv_cdf, 1, 1)

    def score(numbers: Matrix) -> Matrix:
        inner = np.where(numbers + _NEAR > last, 1.0, between(numbers))
        ranks = np.where(numbers - _NEAR < first, 0.0, inner)
        scores: Matrix = inverse(np.clip(ranks, _LEAST_RANK, 1 - _LEAST_RANK)).astype(np.float64)
        return scores

    return score


def _between(quantiles: Matrix) -> Change:
    ranks = np.linspace(0.0, 1.0, len(quantiles))
    falling, falling_ranks = -quantiles[::-1], -ranks[::-1]
    return lambda numbers: (
        0.5 * (np.interp(numbers, quantiles, ranks) - np.interp(-numbers, falling, falling_ranks))
    )


def _terms(columns: npt.NDArray[np.intp], terms: Sequence[Sequence[int]]) -> Change:
    """Products of columns, multiplied from the last factor to the first."""
    most = max(len(term) for term in terms)
    one = len(columns)
    factors = np.array([[one] * (most - len(term)) + [*reversed(term)] for term in terms], np.intp)

    def product(matrix: Matrix) -> Matrix:
        given = np.column_stack([matrix[:, columns], np.ones(len(matrix))])
        made = np.ones((len(matrix), len(terms)))
        for places in factors.T:
            made = made * given[:, places]
        return made

    return product
