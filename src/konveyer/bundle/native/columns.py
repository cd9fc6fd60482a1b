"""A fitted pipeline's preparation, column by column, as a plan that needs no library.

Each column that reaches the estimator comes from one feature: a number, or a text that an encoder
turned into one, and then simple steps; or it is made of several of those at once, a `Mix`. What
cannot be said so raises `NotCompiled`.
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
    """A number made of the feature at `source`, or the one that `mix` has at that place.

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
    mix: "Mix | None" = None

    def then(self, *step: Any) -> "Column":
        if self.raw:
            message = "a text column reaches a step for numbers; encode it before"
            raise NotCompiled(message)
        return replace(self, steps=(*self.steps, step))

    def as_category(self) -> "Column":
        """The numbers of a text counted from 1, with 0 for a null; below 0 for none of them."""
        if self.codes is None or self.steps:
            message = "a number that a tree takes for a category has no compiled form"
            raise NotCompiled(message)
        codes = {value: _category(code) for value, code in self.codes.items()}
        return replace(self, codes=codes, unseen=_category(self.unseen))

    def then_no_infinity(self) -> "Column":
        """What scikit-learn refuses before a step, where the feature itself, or the step before,
        may have one.
        """
        for kind, *_ in reversed(self.steps):
            if kind in ("finite", "no_infinity"):
                return self
            if kind in ("ufunc", "power"):
                return self.then("no_infinity")
        return self if self.codes is not None else self.then("no_infinity")


def _category(code: float | None) -> float | None:
    if code is None:
        return None
    return 0.0 if np.isnan(code) else code + 1 if code >= 0 else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What a step makes of several columns at once; without a `step`, those columns themselves."""

    columns: tuple[Column, ...]
    step: Mapping[str, Any] | None = None
    outputs: int

    def made(self) -> list[Column]:
        if any(column.raw for column in self.columns):
            message = "a text column reaches a step for numbers; encode it before"
            raise NotCompiled(message)
        return [Column(source=place, mix=self) for place in range(self.outputs)]


def plan_of(columns: Sequence[Column], *, is_finite: bool) -> dict[str, Any]:
    """The JSON of a preparation: `sources` first, then steps over all columns at once."""
    if any(column.raw for column in columns):
        message = "a text column reaches the estimator; encode it in the pipeline"
        raise NotCompiled(message)
    sources, steps = _prepared(columns)
    return {"sources": sources, "steps": steps, "finite": is_finite}


def _prepared(columns: Sequence[Column]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is read, and the steps after which the matrix has `columns`, in order."""
    mixes = list({id(one.mix): one.mix for one in columns if one.mix is not None}.values())
    if not mixes:
        return _read(columns)
    given = [replace(one, steps=()) for one in columns if one.mix is None]
    plain = iter(range(len(given)))
    starts: dict[int, int] = {}
    inputs = []
    for mix in mixes:
        inputs.append(list(range(len(given), len(given) + len(mix.columns))))
        given += mix.columns
    sources, steps = _prepared(given)
    width = len(given)
    for mix, places in zip(mixes, inputs, strict=True):
        starts[id(mix)] = places[0] if mix.step is None else width
        if mix.step is not None:
            steps.append({**mix.step, "columns": places})
            width += mix.outputs
    take = [next(plain) if one.mix is None else starts[id(one.mix)] + one.source for one in columns]
    return sources, [*steps, {"kind": "take", "columns": take}, *_layers(columns)]


def _read(columns: Sequence[Column]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Columns of the same source and codes are read once; `take` spreads them."""
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
    return sources, [*steps, *_layers(columns)]


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


# What the step of a kind is where a column has none of it.
_IDENTITY: dict[str, tuple[float, ...]] = {
    "impute": (NAN,),
    "shift_divide": (0.0, 1.0),
    "multiply_add": (1.0, 0.0),
    "clip": (-np.inf, np.inf),
    "equals": (NAN,),
    "within": (-np.inf, np.inf),
    "power": (1.0,),
}
# Each column of these has a list of numbers.
_LISTS = ("bins", "ranks", "scores")


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
    layer = {"kind": kind, "columns": at}
    if kind == "ufunc":
        return {**layer, "name": chosen[at[0]][0]}
    if kind in _LISTS:
        return {**layer, "values": [chosen[place][0] for place in at]}
    if kind not in _IDENTITY:
        return layer
    identity = _IDENTITY[kind]
    rows = [identity if one is None else one for one in chosen]
    names = [[_text(float(row[n])) for row in rows] for n in range(len(identity))]
    return {**layer, "values": names}


def _text(number: float) -> float | str:
    return number if np.isfinite(number) else str(number)
