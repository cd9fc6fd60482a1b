"""What transformers of scikit-learn make of several columns at once, and which they keep."""

from typing import Any

import numpy as np

from konveyer.bundle.native.columns import Column, Mix

Columns = list[Column]


def _selection(step: Any, columns: Columns) -> Columns:
    """What is dropped is checked like what is kept; where nulls may pass, infinite numbers do."""
    kept = np.flatnonzero(step.get_support())
    if step.__sklearn_tags__().input_tags.allow_nan:
        return [columns[place] for place in kept]
    made = Mix(columns=_finite(columns), outputs=len(columns)).made()
    return [made[place] for place in kept]


def _principal(step: Any, columns: Columns) -> Columns:
    made = _product(step, columns)
    shifts = step.mean_ @ step.components_.T
    least = np.finfo(np.float64).eps
    scales = np.maximum(np.sqrt(step.explained_variance_), least)
    return [
        one.then("shift_divide", float(shift), float(scale) if step.whiten else 1.0)
        for one, shift, scale in zip(made, shifts, scales, strict=True)
    ]


def _product(step: Any, columns: Columns) -> Columns:
    factors = step.components_.T
    given = {"kind": "product", "values": factors.tolist()}
    return Mix(columns=_finite(columns), step=given, outputs=factors.shape[1]).made()


def _polynomial(step: Any, columns: Columns) -> Columns:
    """Each term is the columns that it multiplies, one as often as its power."""
    places = np.arange(len(columns))
    terms = [np.repeat(places, powers).tolist() for powers in step.powers_]
    given = {"kind": "terms", "values": terms}
    return Mix(columns=_finite(columns), step=given, outputs=len(terms)).made()


def _finite(columns: Columns) -> tuple[Column, ...]:
    return tuple(one.then("finite") for one in columns)


RULES = {
    "PCA": _principal,
    "IncrementalPCA": _principal,
    "TruncatedSVD": _product,
    "PolynomialFeatures": _polynomial,
    "VarianceThreshold": _selection,
    "SelectKBest": _selection,
    "SelectPercentile": _selection,
    "SelectFpr": _selection,
    "SelectFdr": _selection,
    "SelectFwe": _selection,
    "GenericUnivariateSelect": _selection,
    "SelectFromModel": _selection,
    "SequentialFeatureSelector": _selection,
    "RFE": _selection,
    "RFECV": _selection,
}
