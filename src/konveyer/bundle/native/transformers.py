"""What each transformer of scikit-learn does to columns; one rule a class, in `RULES`.

Encoders are asked, not read: what a fitted one gives for each of its categories, for a null and
for a value it never saw is its rule, whatever its options were.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from konveyer.bundle.native.columns import NAN, Column, NotCompiled

Columns = list[Column]
Rule = Callable[[Any, Columns], Columns]
_UNSEEN_TEXT, _UNSEEN_NUMBER = "\u2205 no such category", -987654321.125
_UFUNCS = ("log1p", "log", "sqrt", "abs", "absolute", "square", "expm1", "exp", "log10", "log2")


def transformed(step: Any, columns: Columns) -> Columns:
    """The columns after a fitted `step` of a pipeline."""
    if step is None or isinstance(step, str):
        return [] if step == "drop" else columns
    name = type(step).__name__
    rule = RULES.get(name) if type(step).__module__.startswith("sklearn.") else None
    if rule is None:
        message = f"{name} has no compiled form"
        raise NotCompiled(message)
    return rule(step, columns)


def _pipeline(step: Any, columns: Columns) -> Columns:
    for _, inner in step.steps:
        columns = transformed(inner, columns)
    return columns


def _column_transformer(step: Any, columns: Columns) -> Columns:
    found: Columns = []
    indices = step._transformer_to_input_indices  # noqa: SLF001 - there is no public one
    for name, inner, _ in step.transformers_:
        found += transformed(inner, [columns[place] for place in indices[name]])
    return found


def _feature_union(step: Any, columns: Columns) -> Columns:
    return [one for _, inner in step.transformer_list for one in transformed(inner, columns)]


def _standard(step: Any, columns: Columns) -> Columns:
    size = len(columns)
    means = step.mean_ if step.with_mean else np.zeros(size)
    scales = step.scale_ if step.with_std else np.ones(size)
    return _shifted(columns, means, scales)


def _robust(step: Any, columns: Columns) -> Columns:
    size = len(columns)
    centers = step.center_ if step.with_centering else np.zeros(size)
    return _shifted(columns, centers, step.scale_ if step.with_scaling else np.ones(size))


def _max_abs(step: Any, columns: Columns) -> Columns:
    return _shifted(columns, np.zeros(len(columns)), step.scale_)


def _shifted(columns: Columns, shifts: Any, scales: Any) -> Columns:
    return [
        one.then("shift_divide", float(shift), float(scale))
        for one, shift, scale in zip(columns, shifts, scales, strict=True)
    ]


def _min_max(step: Any, columns: Columns) -> Columns:
    low, high = step.feature_range
    scaled = [
        one.then("multiply_add", float(scale), float(least))
        for one, scale, least in zip(columns, step.scale_, step.min_, strict=True)
    ]
    return [one.then("clip", low, high) for one in scaled] if step.clip else scaled


def _imputer(step: Any, columns: Columns) -> Columns:
    if not (isinstance(step.missing_values, float) and np.isnan(step.missing_values)):
        message = "SimpleImputer of other values than NaN has no compiled form"
        raise NotCompiled(message)
    filled = []
    for one, value in zip(columns, step.statistics_, strict=True):
        is_empty = isinstance(value, float) and np.isnan(value)
        if is_empty and not step.keep_empty_features:
            continue
        filled.append(replace(one, fill=value) if one.raw else one.then("impute", float(value)))
    if step.indicator_ is None:
        return filled
    return filled + _indicator(step.indicator_, columns)


def _indicator(step: Any, columns: Columns) -> Columns:
    if any(one.raw for one in columns):
        message = "an indicator of missing texts has no compiled form"
        raise NotCompiled(message)
    return [columns[place].then("is_missing") for place in step.features_]


def _function(step: Any, columns: Columns) -> Columns:
    if step.func is None:
        return columns
    name = getattr(step.func, "__name__", "")
    if name not in _UFUNCS or step.func is not getattr(np, name) or step.kw_args:
        message = f"FunctionTransformer of {name or 'a function'} has no compiled form"
        raise NotCompiled(message)
    return [one.then("ufunc", name) for one in columns]


def _encoder(step: Any, columns: Columns) -> Columns:
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
        found += _encoded(one, answers)
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


def _encoded(one: Column, answers: dict[Any, Any]) -> Columns:
    if one.steps or one.codes is not None:
        message = "an encoder behind other steps for numbers has no compiled form"
        raise NotCompiled(message)
    if one.fill is not None:
        answers[None] = answers.get(one.fill, answers[_Unseen])
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


RULES: dict[str, Rule] = {
    "Pipeline": _pipeline,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "SimpleImputer": _imputer,
    "MissingIndicator": _indicator,
    "FunctionTransformer": _function,
    "OneHotEncoder": _encoder,
    "OrdinalEncoder": _encoder,
    "TargetEncoder": _encoder,
}
