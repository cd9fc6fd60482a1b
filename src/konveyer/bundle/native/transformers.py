"""What each transformer of scikit-learn does to columns; one rule a class, in `RULES`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from konveyer.bundle.native.columns import Column, Mix, NotCompiled
from konveyer.bundle.native.curves import RULES as CURVES
from konveyer.bundle.native.encoders import encoded
from konveyer.bundle.native.mixing import RULES as MIXING

Columns = list[Column]
Rule = Callable[[Any, Columns], Columns]
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


def _frozen(step: Any, columns: Columns) -> Columns:
    return transformed(step.estimator, columns)


def _column_transformer(step: Any, columns: Columns) -> Columns:
    found: Columns = []
    indices = step._transformer_to_input_indices  # noqa: SLF001 - there is no public one
    for name, inner, _ in step.transformers_:
        if not indices[name]:  # it was never fitted
            continue
        made = transformed(inner, [columns[place] for place in indices[name]])
        found += _weighted(step, name, made)
    return found


def _feature_union(step: Any, columns: Columns) -> Columns:
    return [
        one
        for name, inner in step.transformer_list
        for one in _weighted(step, name, transformed(inner, columns))
    ]


def _weighted(step: Any, name: str, columns: Columns) -> Columns:
    """What comes of the transformer `name`, times its weight if it has one."""
    weight = (step.transformer_weights or {}).get(name)
    if weight is None:
        return columns
    return [one.then("multiply_add", float(weight), 0.0) for one in columns]


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
    scaled = _shifted(columns, np.zeros(len(columns)), step.scale_)
    is_clipped = getattr(step, "clip", False)  # since scikit-learn 1.9
    return [one.then("clip", -1.0, 1.0) for one in scaled] if is_clipped else scaled


def _shifted(columns: Columns, shifts: Any, scales: Any) -> Columns:
    return [
        one.then_no_infinity().then("shift_divide", float(shift), float(scale))
        for one, shift, scale in zip(columns, shifts, scales, strict=True)
    ]


def _min_max(step: Any, columns: Columns) -> Columns:
    low, high = step.feature_range
    scaled = [
        one.then_no_infinity().then("multiply_add", float(scale), float(least))
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
        filled.append(
            replace(one, fill=value)
            if one.raw
            else one.then_no_infinity().then("impute", float(value))
        )
    if step.indicator_ is None:
        return filled
    return filled + _indicator(step.indicator_, columns)


def _indicator(step: Any, columns: Columns) -> Columns:
    if any(one.raw for one in columns):
        message = "an indicator of missing texts has no compiled form"
        raise NotCompiled(message)
    if step.features == "missing-only" and step.error_on_new:
        known = set(step.features_.tolist())
        checked = [one if n in known else one.then("finite") for n, one in enumerate(columns)]
        columns = Mix(columns=tuple(checked), outputs=len(checked)).made()
    return [columns[place].then_no_infinity().then("is_missing") for place in step.features_]


def _function(step: Any, columns: Columns) -> Columns:
    if step.validate:
        columns = [one.then("finite") for one in columns]
    if step.func is None:
        return columns
    name = getattr(step.func, "__name__", "")
    if name not in _UFUNCS or step.func is not getattr(np, name) or step.kw_args:
        message = f"FunctionTransformer of {name or 'a function'} has no compiled form"
        raise NotCompiled(message)
    return [one.then("ufunc", name) for one in columns]


RULES: dict[str, Rule] = {
    "Pipeline": _pipeline,
    "FrozenEstimator": _frozen,
    "ColumnTransformer": _column_transformer,
    "FeatureUnion": _feature_union,
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "SimpleImputer": _imputer,
    "MissingIndicator": _indicator,
    "FunctionTransformer": _function,
    "OneHotEncoder": encoded,
    "OrdinalEncoder": encoded,
    "TargetEncoder": encoded,
    **CURVES,
    **MIXING,
}
