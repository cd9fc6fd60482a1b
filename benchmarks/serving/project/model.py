"""A scikit-learn pipeline as data scientists write it: scaled numbers, encoded texts, LightGBM."""

from typing import Any

from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler


def train(
    features: Any,
    labels: Any,
    names: list[str],
    categorical: list[int],
    parameters: dict[str, Any],
) -> Pipeline:
    """The pipeline, fitted to a DataFrame with a column for each of `names`."""
    texts = [names[place] for place in categorical]
    numbers = [name for name in names if name not in texts]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = ColumnTransformer(
        [("numbers", StandardScaler(), numbers), ("texts", encoder, texts)]
    )
    booster = LGBMClassifier(n_estimators=parameters["trees"], n_jobs=1, verbose=-1)
    return Pipeline([("prepare", prepared), ("booster", booster)]).fit(features, labels)
