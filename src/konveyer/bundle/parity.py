"""Does what serves a model say what the model said where it was trained?"""

import math
from collections.abc import Callable, Sequence
from heapq import nlargest
from operator import attrgetter
from typing import Any

from msgspec import Struct

from konveyer.bundle.manifest import GoldenCase
from konveyer.core.errors import KonveyerError

Predict = Callable[[Sequence[Sequence[Any]]], Sequence[Sequence[Any]]]
_SHOWN = 5


class Apart(Struct, frozen=True, kw_only=True):
    """A case that got another answer than `wanted`, and how far they are apart."""

    features: list[Any]
    wanted: list[Any]
    got: list[Any]
    difference: float


class Parity(Struct, frozen=True, kw_only=True):
    """`differences` has one for each case that was answered; `unlike` are cases that one side
    answered and the other refused. `worst` are the cases that are furthest apart, the worst first.
    """

    differences: list[float]
    unlike: list[str]
    worst: list[Apart] = []

    def holds(self, tolerance: float) -> bool:
        return not self.unlike and max(self.differences, default=0.0) <= tolerance

    def __str__(self) -> str:
        worst = max(self.differences, default=0.0)
        unlike = f"; {self.unlike[0]}" if self.unlike else ""
        return f"{len(self.differences)} answers, worst difference {worst:.1e}{unlike}"


def parity(predict: Predict, cases: Sequence[GoldenCase]) -> Parity:
    """Ask for every case alone, and for all that have an answer together.

    A difference is relative to a number beyond 1, and absolute below; that of texts is 0 or 1.
    """
    good = [case for case in cases if not case.error]
    unlike, answered, apart = [], [], []
    for case in good:
        try:
            (alone,) = predict([case.features])
        except KonveyerError as error:
            unlike.append(f"the model answers {_short(case)}, this one: {error.message}")
            continue
        answered.append(case)
        apart.append(_apart(alone, case))
    together = predict([case.features for case in answered]) if answered else []
    for place, (case, among) in enumerate(zip(answered, together, strict=True)):
        apart[place] = max(apart[place], _apart(among, case), key=_difference)
    for case in cases:
        if not case.error:
            continue
        try:
            predict([case.features])
        except KonveyerError:
            continue
        unlike.append(f"the model refuses {_short(case)} ({case.error}), this one answers")
    return Parity(
        differences=[one.difference for one in apart],
        unlike=unlike[:_SHOWN],
        worst=[one for one in nlargest(_SHOWN, apart, key=_difference) if one.difference],
    )


def _apart(got: Sequence[Any], case: GoldenCase) -> Apart:
    return Apart(
        features=case.features,
        wanted=case.outputs,
        got=list(got),
        difference=worst_of(got, case),
    )


_difference = attrgetter("difference")


def worst_of(got: Sequence[Any], case: GoldenCase) -> float:
    return max(difference(*pair) for pair in zip(got, case.outputs, strict=True))


def difference(got: Any, wanted: Any) -> float:
    if isinstance(got, int | float) and isinstance(wanted, int | float):
        apart = abs(got - wanted) / max(1.0, abs(wanted))
        return math.inf if math.isnan(apart) else apart
    return 0.0 if got == wanted else 1.0


def _short(case: GoldenCase) -> str:
    text = str(case.features)
    return text if len(text) <= 80 else f"{text[:77]}..."
