"""Linear models of scikit-learn as numbers: coefficients, intercepts, a link."""

from typing import Any

import numpy as np

_EXP = ("PoissonRegressor", "GammaRegressor", "TweedieRegressor")
_SUMS = (
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "ElasticNet",
    "ElasticNetCV",
    "BayesianRidge",
    "ARDRegression",
    "HuberRegressor",
    "SGDRegressor",
    "QuantileRegressor",
    "TheilSenRegressor",
    "LinearSVR",
)
_SCORES = ("RidgeClassifier", "RidgeClassifierCV", "LinearSVC", "Perceptron")


def linear_of(model: Any) -> dict[str, Any] | None:
    """The JSON of a linear scorer; None when `model` is none that is known here."""
    name = type(model).__name__
    if not type(model).__module__.startswith("sklearn.") or not hasattr(model, "coef_"):
        return None
    link = _link(model, name)
    if link is None:
        return None
    coefficients = np.atleast_2d(np.asarray(model.coef_, np.float64))
    intercepts = np.broadcast_to(
        np.ravel(np.asarray(model.intercept_, np.float64)), len(coefficients)
    )
    return {
        "coefficients": coefficients.tolist(),
        "intercepts": intercepts.tolist(),
        "link": link,
    }


def _link(model: Any, name: str) -> str | None:
    if name in _SUMS:
        return "identity"
    if name in _EXP:
        link = getattr(model, "link", "log")
        return "identity" if link == "identity" or (link == "auto" and model.power <= 0) else "exp"
    is_binary = len(getattr(model, "classes_", ())) == 2
    if name in ("LogisticRegression", "LogisticRegressionCV"):
        return "sigmoid" if is_binary else "softmax"
    if name == "SGDClassifier":
        if not is_binary:
            return None
        return {"log_loss": "sigmoid", "hinge": "identity"}.get(model.loss)
    return "identity" if name in _SCORES and is_binary else None
