"""The model: gradient boosting over the features of its service."""

from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt


def train(
    features: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    names: list[str],
    categorical: list[int],
    parameters: dict[str, Any],
) -> lgb.Booster:
    """Fit on `features` (rows, columns named `names`); `categorical` columns hold codes.

    NaN is a missing value. The same input gives the same model.
    """
    settings = {name: value for name, value in parameters.items() if name != "rounds"}
    data = lgb.Dataset(features, labels, feature_name=names, categorical_feature=categorical)
    fixed = {"objective": "binary", "deterministic": True, "num_threads": 2, "verbosity": -1}
    return lgb.train({**fixed, **settings}, data, num_boost_round=parameters["rounds"])
