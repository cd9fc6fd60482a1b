"""Invariants that the author declared, on recorded rows that are moved through what was observed.

A model is a black box here: every row is asked again with one feature set to points between the
smallest and the largest value that was recorded, all else equal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from konveyer.bundle.invariants import is_movable
from konveyer.bundle.manifest import Manifest
from konveyer.bundle.release_policy import Invariant
from konveyer.core.schema import ColumnType, DecimalType, Dtype
from konveyer.execution.releases.gates.answers import Answer

POINTS = 11
_ROWS_MOVED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How an invariant was kept: answers looked at, how many broke it, and the worst of them."""

    invariant: str
    answers: int
    broken: int
    worst: dict[str, Any] | None


def check_all(manifest: Manifest, observed: Sequence[Sequence[Any]], answer: Answer) -> list[Held]:
    """Each invariant of the manifest on some of the rows `observed`, moved between the ends of all.

    A row has the features in order.
    """
    places = np.linspace(0, len(observed) - 1, min(_ROWS_MOVED, len(observed))).astype(int)
    rows = [observed[place] for place in places]
    names = [column.name for column in manifest.service.columns]
    movable = [
        place for place, column in enumerate(manifest.service.columns) if is_movable(column.dtype)
    ]
    ends = {place: _ends(observed, place) for place in movable}
    outputs = [one.name for one in manifest.model.outputs]
    found = []
    for invariant in manifest.invariants:
        match invariant.kind:
            case "increasing" | "decreasing":
                place = names.index(invariant.feature or "")
                points = observed_points(observed, place, manifest.service.columns[place].dtype)
                output = outputs.index(invariant.output or outputs[0])
                found.append(_moved_one_way(invariant, rows, place, points, output, answer))
            case "range" | "sum-to-one":
                at = outputs.index(invariant.output) if invariant.output else 0
                asked = _perturbed(rows, ends)
                found.append(_within(invariant, asked, at, answer))
    return found


def observed_points(rows: Sequence[Sequence[Any]], place: int, dtype: Dtype) -> list[Any]:
    """Up to `POINTS` values, evenly from the smallest to the largest recorded; none without any.

    >>> observed_points([[1], [None], [4]], 0, ColumnType.INT64)
    [1, 2, 3, 4]
    >>> observed_points([[0.1], [0.4]], 0, DecimalType(9, 1))
    [0.1, 0.2, 0.3, 0.4]
    """
    values = [row[place] for row in rows if row[place] is not None]
    if not values or dtype is ColumnType.BOOL:
        return sorted(set(values))
    line = np.linspace(float(min(values)), float(max(values)), POINTS).tolist()
    if isinstance(dtype, DecimalType):  # a model is given the number
        return sorted({round(value, dtype.scale) for value in line})
    return sorted(set(line if dtype is ColumnType.FLOAT64 else map(round, line)))


def _moved_one_way(
    invariant: Invariant,
    rows: Sequence[Sequence[Any]],
    place: int,
    points: Sequence[Any],
    output: int,
    answer: Answer,
) -> Held:
    """Along the points no step goes the wrong way by more than the tolerance."""
    asked = [_with(row, place, point) for row in rows for point in points]
    given = [one[output] for one in answer(asked)]
    sign = 1.0 if invariant.kind == "increasing" else -1.0
    broken, worst, most = 0, None, 0.0
    for number in range(len(rows)):
        line = given[number * len(points) : (number + 1) * len(points)]
        for step, (before, after) in enumerate(pairwise(line)):
            wrong = _wrong_way(before, after, sign)
            broken += wrong > invariant.tolerance
            if wrong > max(most, invariant.tolerance):
                most = wrong
                worst = {
                    "row": number,
                    invariant.feature or "": [points[step], points[step + 1]],
                    "output": [before, after],
                }
    name = f"{invariant.kind} in {invariant.feature}"
    return Held(invariant=name, answers=len(given), broken=broken, worst=worst)


def _wrong_way(before: Any, after: Any, sign: float) -> float:
    if before is None or after is None:
        return math.inf
    fell: float = sign * (before - after)
    return math.inf if math.isnan(fell) else fell


def _within(
    invariant: Invariant, asked: Sequence[Sequence[Any]], output: int, answer: Answer
) -> Held:
    """Every answer is in its range, or its numbers sum to one."""
    broken, worst, most = 0, None, 0.0
    given = answer(asked)
    for number, one in enumerate(given):
        wrong = _outside(invariant, one, output)
        broken += wrong > invariant.tolerance
        if wrong > max(most, invariant.tolerance):
            most, worst = wrong, {"features": list(asked[number]), "outputs": list(one)}
    named = "outputs sum to one"
    if invariant.kind == "range":
        low = "" if invariant.minimum is None else f"{invariant.minimum:g} <= "
        high = "" if invariant.maximum is None else f" <= {invariant.maximum:g}"
        named = f"{low}{invariant.output or 'output'}{high}"
    return Held(invariant=named, answers=len(given), broken=broken, worst=worst)


def _outside(invariant: Invariant, outputs: Sequence[Any], place: int) -> float:
    """By how much the answer is outside; infinite for a null or no number."""
    numbers = outputs if invariant.kind == "sum-to-one" else [outputs[place]]
    if any(one is None or not math.isfinite(one) for one in numbers):
        return math.inf
    if invariant.kind == "sum-to-one":
        return float(max(abs(sum(numbers) - 1.0), -min(numbers)))
    low = -math.inf if invariant.minimum is None else invariant.minimum
    high = math.inf if invariant.maximum is None else invariant.maximum
    return float(max(low - numbers[0], numbers[0] - high, 0.0))


def _perturbed(
    rows: Sequence[Sequence[Any]], ends: Mapping[int, Sequence[Any]]
) -> list[Sequence[Any]]:
    """The rows, and each with one feature at its smallest, largest and no value."""
    found = list(rows)
    for place, values in ends.items():
        found += [_with(row, place, value) for row in rows for value in (*values, None)]
    return found


def _ends(rows: Sequence[Sequence[Any]], place: int) -> list[Any]:
    values = [row[place] for row in rows if row[place] is not None]
    return [min(values), max(values)] if values else []


def _with(row: Sequence[Any], place: int, value: Any) -> list[Any]:
    return [*row[:place], value, *row[place + 1 :]]
