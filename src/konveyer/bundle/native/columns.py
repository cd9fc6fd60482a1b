"""A fitted pipeline's preparation, column by column, as a plan that needs no library.

Each column that reaches the estimator comes from one feature: a number, or a text that an encoder
turned into one, and then simple steps. What cannot be said so raises `NotCompiled`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

NAN = float("nan")
# A kind, then its numbers; of a ufunc, its name.
Step = tuple[Any, ...]


class NotCompiled(Exception):
    """Why a model, or a part of it, has no compiled form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A number made of the feature at `source`.

    `codes` are the numbers of its values when it was encoded (None stands for a null); `unseen` is
    that of any other value, None when the encoder raises an error for it. A `raw` text was not
    encoded yet; `fill` stands in for its nulls.
    """

    source: int
    raw: bool = False
    fill: Any = None
    codes: Mapping[Any, float | None] | None = None
    unseen: float | None = NAN
    steps: tuple[Step, ...] = ()

    def then(self, *step: Any) -> "Column":
        if self.raw:
            message = "a text column reaches a step for numbers; encode it before"
            raise NotCompiled(message)
        return replace(self, steps=(*self.steps, step))


def plan_of(columns: Sequence[Column], *, is_finite: bool) -> dict[str, Any]:
    """The JSON of a preparation: `sources` first, then steps over all columns at once.

    Columns of the same source and codes are read once; `take` spreads them.
    """
    if any(column.raw for column in columns):
        message = "a text column reaches the estimator; encode it in the pipeline"
        raise NotCompiled(message)
    sources: list[dict[str, Any]] = []
    places: dict[tuple[int, int], int] = {}
    take = []
    for column in columns:
        key = (column.source, id(column.codes))
        if key not in places:
            places[key] = len(sources)
            sources.append(_source(column))
        take.append(places[key])
    steps = [{"kind": "take", "columns": take}] if take != list(range(len(sources))) else []
    return {"sources": sources, "steps": [*steps, *_layers(columns)], "finite": is_finite}


def _source(column: Column) -> dict[str, Any]:
    if column.codes is None:
        return {"feature": column.source, "codes": None}
    return {
        "feature": column.source,
        "codes": [[value, _plain(code)] for value, code in column.codes.items()],
        "unseen": _plain(column.unseen),
    }


def _plain(number: float | None) -> float | str | None:
    """JSON has no NaN."""
    return "nan" if number is not None and np.isnan(number) else number


_IDENTITY: dict[str, tuple[float, ...]] = {
    "impute": (NAN,),
    "shift_divide": (0.0, 1.0),
    "multiply_add": (1.0, 0.0),
    "clip": (-np.inf, np.inf),
    "equals": (NAN,),
    "is_missing": (0.0,),
    "ufunc": (0.0,),
    "float32": (0.0,),
}


def _layers(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The steps of all columns, each kind at once; a column that has none of it stays as it is."""
    waiting = [list(column.steps) for column in columns]
    layers = []
    while any(waiting):
        first = next(steps[0] for steps in waiting if steps)
        kind = first[0]
        chosen = [
            steps.pop(0)[1:] if steps and _alike(steps[0], first) else None for steps in waiting
        ]
        layers.append(_layer(kind, chosen))
    return layers


def _alike(step: Step, other: Step) -> bool:
    return bool(step[0] == other[0]) and bool(step[0] != "ufunc" or step[1] == other[1])


def _layer(kind: str, chosen: Sequence[Any]) -> dict[str, Any]:
    at = [place for place, one in enumerate(chosen) if one is not None]
    if kind == "ufunc":
        return {"kind": kind, "name": chosen[at[0]][0], "columns": at}
    if kind in ("is_missing", "float32"):
        return {"kind": kind, "columns": at}
    identity = _IDENTITY[kind]
    rows = [identity if one is None else one for one in chosen]
    names = [[_text(float(row[n])) for row in rows] for n in range(len(identity))]
    return {"kind": kind, "columns": at, "values": names}


def _text(number: float) -> float | str:
    return number if np.isfinite(number) else str(number)
