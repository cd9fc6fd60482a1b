"""Explicit preparation: from rows of feature values to the numbers that a scorer reads.

A plan was made from a fitted pipeline where the model was trained (`native/columns.py`); here it is
lookups and a few operations of NumPy over whole rows, all in float64.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.steps import Matrix, finite, step_of
from konveyer.feature_store.online.codec import Value

_NAN = float("nan")


class Distinct(NamedTuple):
    """A column as its different `values`, None for a null, and the place of each row's value."""

    values: Sequence[Value]
    places: npt.NDArray[np.integer[Any]]


class Columns(Protocol):
    """Many rows of feature values, a column at a time, by place in the service's order."""

    @property
    def rows(self) -> int: ...

    def numbers(self, place: int) -> Matrix:
        """A float64 for each row; a null is NaN."""
        ...

    def distinct(self, place: int) -> Distinct: ...


class _Codes(dict[Any, float]):
    """The number of each value; `unseen` for others, or an error where training had one."""

    def __init__(self, feature: str, pairs: Sequence[tuple[Any, Any]], unseen: Any) -> None:
        super().__init__((value, float(code)) for value, code in pairs if code is not None)
        self._feature, self._unseen = feature, None if unseen is None else float(unseen)

    def __missing__(self, value: Any) -> float:
        # A number is what the model was given in training: a float64, where NaN is a null.
        if isinstance(value, Decimal | int | float):
            number = float(value)
            if number != value:
                return self[None if math.isnan(number) else number]
        if value is not None and self._unseen is not None:
            return self._unseen
        raise ModelFailed(
            f"The model takes no {value!r} for the feature '{self._feature}'.",
            hint="let its encoder take values that it never saw, and train again",
        )


class Plan:
    """Prepares rows in the service's order; the result is C-ordered. Thread-safe.

    >>> codes = [["Oslo", 0.0], ["Rome", 1.0], [None, "nan"]]
    >>> sources = [{"feature": 1, "codes": codes, "unseen": -1.0}, {"feature": 0, "codes": None}]
    >>> steps = [{"kind": "impute", "columns": [1], "values": [["nan", 40.0]]}]
    >>> plan = Plan({"sources": sources, "steps": steps, "finite": False}, ["age", "city"])
    >>> plan.matrix([[30, "Rome"], [None, "Paris"]]).tolist()
    [[1.0, 30.0], [-1.0, 40.0]]
    """

    def __init__(self, plan: Mapping[str, Any], names: Sequence[str]) -> None:
        sources = plan["sources"]
        self._places = [source["feature"] for source in sources]
        self._in_order = self._places == list(range(len(names)))
        self._codes: list[_Codes | None] = [
            None
            if source["codes"] is None
            else _Codes(names[source["feature"]], source["codes"], source["unseen"])
            for source in sources
        ]
        self._steps = [step_of(one) for one in plan["steps"]]
        if plan["finite"]:
            self._steps.append(finite)
        self.width = len(sources)
        for one in plan["steps"]:
            self.width = len(one["columns"]) if one["kind"] == "take" else self.width

    def matrix(self, rows: Sequence[Sequence[Value]]) -> Matrix:
        codes, places = self._codes, self._places
        picked: Sequence[Sequence[Any]] = (
            rows if self._in_order else [[row[place] for place in places] for row in rows]
        )
        filled = [
            [
                (_NAN if value is None else value) if column is None else column[value]
                for value, column in zip(row, codes, strict=True)
            ]
            for row in picked
        ]
        return self._prepared(np.array(filled, dtype=np.float64).reshape(len(rows), len(codes)))

    def matrix_of(self, columns: Columns) -> Matrix:
        """The same of many rows at a time."""
        filled = np.empty((columns.rows, len(self._codes)), np.float64)
        for number, (place, codes) in enumerate(zip(self._places, self._codes, strict=True)):
            if codes is None:
                filled[:, number] = columns.numbers(place)
            else:
                values, places = columns.distinct(place)
                filled[:, number] = np.array([codes[value] for value in values])[places]
        return self._prepared(filled)

    def _prepared(self, matrix: Matrix) -> Matrix:
        for step in self._steps:
            matrix = step(matrix)
        return matrix


def plan_of_codes(names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> Plan:
    """The plan of a model of numbers and category codes: a null and an unseen text are NaN."""
    sources = [
        {"feature": place, "codes": None}
        if name not in categories
        else {
            "feature": place,
            "codes": [*([text, code] for code, text in enumerate(categories[name])), [None, _NAN]],
            "unseen": _NAN,
        }
        for place, name in enumerate(names)
    ]
    return Plan({"sources": sources, "steps": [], "finite": False}, names)
