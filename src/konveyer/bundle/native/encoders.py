"""What encoders of scikit-learn make of a column of texts, or of numbers.

They are asked, not read: what a fitted one gives for each of its categories, for a null and for a
value that it never saw is its rule, whatever its options were.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from konveyer.bundle.native.columns import NAN, Column, NotCompiled

Columns = list[Column]
_UNSEEN_TEXT, _UNSEEN_NUMBER = "\u2205 no such category", -987654321.125


def encoded(step: Any, columns: Columns) -> Columns:
    """Ordinal, one-hot or target: asked for every category of one column, the rest held still."""
    usual = [categories[0] for categories in step.categories_]
    widths = getattr(step, "_n_features_outs", None) or [1] * len(columns)
    if sum(widths) != len(_asked(step, [usual])[0]):
        message = f"{type(step).__name__} for several classes has no compiled form"
        raise NotCompiled(message)
    ends = np.cumsum(widths)
    found: Columns = []
    for place, (one, end) in enumerate(zip(columns, ends, strict=True)):
        answers = _answers(step, usual, place, slice(end - widths[place], end))
        found += _numbered(one, answers)
    return found


def _answers(step: Any, usual: list[Any], place: int, block: slice) -> dict[Any, Any]:
    """What the encoder gives for each category, for None (a null), and for "unseen"."""
    categories = list(step.categories_[place])
    known = [one for one in categories if not _is_null(one)]

    def rows(values: Sequence[Any]) -> list[list[Any]]:
        return [[*usual[:place], value, *usual[place + 1 :]] for value in values]

    answers = dict(zip(known, _asked(step, rows(known))[:, block], strict=True)) if known else {}
    unseen = _UNSEEN_TEXT if known and isinstance(known[0], str) else _UNSEEN_NUMBER
    for name, value in ((None, NAN), ("unseen", unseen)):
        try:
            answers[_Unseen if name else None] = _asked(step, rows([value]))[0, block]
        except ValueError:
            answers[_Unseen if name else None] = None
    return answers


class _Unseen:
    """The key of what an encoder gives for a value that it never saw."""


def _numbered(one: Column, answers: dict[Any, Any]) -> Columns:
    if one.steps:
        message = "an encoder behind other steps for numbers has no compiled form"
        raise NotCompiled(message)
    if one.fill is not None:
        answers[None] = answers.get(one.fill, answers[_Unseen])
    if one.codes is not None:
        answers = _behind(one, answers)
    widths = {len(answer) for answer in answers.values() if answer is not None}
    if widths == {1}:
        numbers = {key: None if a is None else float(a[0]) for key, a in answers.items()}
        return [_coded(one, numbers)]
    # A vector that was seen before has its number; each output column then asks for those.
    vectors: list[Any] = []
    numbers = {}
    for key, answer in answers.items():
        if answer is None:
            numbers[key] = None
            continue
        found = next((n for n, known in enumerate(vectors) if np.array_equal(known, answer)), -1)
        if found < 0:
            found = len(vectors)
            vectors.append(answer)
        numbers[key] = float(found)
    coded = _coded(one, numbers)
    return [coded.then("equals", _only(vectors, place)) for place in range(widths.pop())]


def _behind(one: Column, answers: dict[Any, Any]) -> dict[Any, Any]:
    """What an encoder gives for each value of a feature that has numbers already."""

    def said(code: float | None) -> Any:
        if code is None:
            return None
        return answers[None] if np.isnan(code) else answers.get(code, answers[_Unseen])

    codes = one.codes or {}
    return {**{value: said(code) for value, code in codes.items()}, _Unseen: said(one.unseen)}


def _only(vectors: list[Any], place: int) -> float:
    """The number of the one vector with a 1 at `place`; one that none has never comes."""
    holders = [n for n, vector in enumerate(vectors) if vector[place] != 0]
    if len(holders) > 1 or any(vectors[n][place] != 1 for n in holders):
        message = "an encoder of more than zeros and a one has no compiled form"
        raise NotCompiled(message)
    return float(holders[0]) if holders else -1.0


def _coded(one: Column, numbers: dict[Any, float | None]) -> Column:
    unseen = numbers.pop(_Unseen)
    codes = {_plain(key): number for key, number in numbers.items()}
    return replace(one, raw=False, fill=None, codes=codes, unseen=unseen)


def _plain(key: Any) -> Any:
    return key.item() if isinstance(key, np.generic) else key


def _asked(step: Any, rows: list[list[Any]]) -> Any:
    kinds = [object if known.dtype.kind in "OUS" else np.float64 for known in step.categories_]
    columns = [
        np.array(v, dtype=kind) for v, kind in zip(zip(*rows, strict=True), kinds, strict=True)
    ]
    names = getattr(step, "feature_names_in_", None)
    if names is None:
        given = np.array(rows, dtype=object if object in kinds else np.float64)
    else:
        import pandas as pd

        given = pd.DataFrame(
            {
                name: pd.Series(column, dtype=column.dtype)
                for name, column in zip(names, columns, strict=True)
            }
        )
    answer = step.transform(given)
    return np.asarray(answer.toarray() if hasattr(answer, "toarray") else answer, np.float64)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))
