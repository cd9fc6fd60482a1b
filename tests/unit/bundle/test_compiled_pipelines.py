"""Any row gets from a compiled model what the fitted one says of it, or is refused by both."""

import tempfile
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, VarianceThreshold
from sklearn.frozen import FrozenEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, TweedieRegressor
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeRegressor

from konveyer.bundle.forest import ForestScorer
from konveyer.bundle.lightgbm import LightGBMScorer
from konveyer.bundle.native.columns import Column, NotCompiled, plan_of
from konveyer.bundle.native.compile import TREES, scored
from konveyer.bundle.native.inputs import CODES
from konveyer.bundle.native.transformers import transformed
from konveyer.bundle.plan import Plan
from konveyer.development.golden import UNSEEN, edges_of
from tests.unit.bundle.agreement import TABLE, Pair
from tests.unit.bundle.workbench import NAMES, NUMBERS, TEXTS

pytestmark = pytest.mark.filterwarnings("ignore")
# Halfway from the largest float32 to the next power of two, which rounds up, and what is before.
TOO_LARGE = 2.0**128 - 2.0**103
LARGEST = float(np.nextafter(TOO_LARGE, 0.0))


def prepared(numbers: Any, texts: Any) -> ColumnTransformer:
    return ColumnTransformer([("n", numbers, list(NUMBERS)), ("t", texts, list(TEXTS))])


def unseen(**options: Any) -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, **options)


def one_hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(**{"handle_unknown": "ignore", **options})


def booster() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=9, verbose=-1)


def of_numbers(*steps: Any) -> Any:
    """Steps that take no nulls, before a logistic regression."""
    return make_pipeline(
        prepared(make_pipeline(SimpleImputer(), *steps), one_hot()), LogisticRegression(C=0.1)
    )


def of_nulls(step: Any, texts: Any = None) -> Any:
    """A step that lets nulls pass, before boosting."""
    return make_pipeline(prepared(step, texts or unseen()), booster())


def of_texts(encoder: Any) -> Any:
    return make_pipeline(prepared("passthrough", encoder), booster())


def forest(kind: Any = RandomForestClassifier) -> Any:
    return make_pipeline(prepared("passthrough", unseen()), kind(5, random_state=0))


def logistic() -> Any:
    return of_numbers(StandardScaler())


def histograms(**options: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=9, random_state=0, **options)


def searched(search: Any, **options: Any) -> Any:
    return search(logistic(), {"logisticregression__C": [0.1, 1.0]}, cv=2, **options)


def calibrated(model: Any, method: str, **options: Any) -> Any:
    return CalibratedClassifierCV(model, method=method, **{"cv": 2, **options})


MODELS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "forest": (forest, "multiclass", "lightgbm"),
    "forest of numbers": (lambda: forest(RandomForestRegressor), "regression", "lightgbm"),
    "extra trees": (lambda: forest(ExtraTreesClassifier), "binary", "lightgbm"),
    "a tree": (
        lambda: make_pipeline(prepared("passthrough", unseen()), DecisionTreeRegressor()),
        "regression",
        "lightgbm",
    ),
    "grid search": (lambda: searched(GridSearchCV), "multiclass", "linear"),
    "random search": (lambda: searched(RandomizedSearchCV, n_iter=1), "binary", "linear"),
    "a search as the last step": (
        lambda: make_pipeline(
            prepared("passthrough", unseen()),
            GridSearchCV(booster(), {"num_leaves": [7, 15]}, cv=2),
        ),
        "binary",
        "lightgbm",
    ),
    "a tuned threshold": (
        lambda: TunedThresholdClassifierCV(logistic(), cv=2),
        "binary",
        "linear",
    ),
    "a threshold in a calibration": (
        lambda: calibrated(FixedThresholdClassifier(logistic(), threshold=0.3), "sigmoid"),
        "binary",
        "calibrated",
    ),
    "calibrated boosters of classes": (
        lambda: calibrated(of_texts(unseen()), "isotonic"),
        "multiclass",
        "calibrated",
    ),
    "sigmoids of margins of classes": (
        lambda: calibrated(histograms(categorical_features=list(TEXTS)), "sigmoid", ensemble=False),
        "multiclass",
        "calibrated",
    ),
    "a calibrated forest of classes": (
        lambda: calibrated(forest(), "isotonic", ensemble=False),
        "multiclass",
        "calibrated",
    ),
    "calibrated logistic of classes": (
        lambda: calibrated(logistic(), "sigmoid"),
        "multiclass",
        "calibrated",
    ),
    "categories of histograms": (
        lambda: histograms(categorical_features=list(TEXTS)),
        "binary",
        "lightgbm",
    ),
    "yeo-johnson": (lambda: of_nulls(PowerTransformer()), "binary", "lightgbm"),
    "yeo-johnson without a scale": (
        lambda: of_numbers(PowerTransformer(standardize=False), StandardScaler()),
        "binary",
        "linear",
    ),
    "ranks": (lambda: of_nulls(QuantileTransformer(n_quantiles=50)), "multiclass", "lightgbm"),
    "normal scores": (
        lambda: of_nulls(QuantileTransformer(n_quantiles=50, output_distribution="normal")),
        "binary",
        "lightgbm",
    ),
    "bins": (lambda: of_numbers(KBinsDiscretizer(4)), "binary", "linear"),
    "numbers of bins": (
        lambda: of_numbers(KBinsDiscretizer(4, encode="ordinal", strategy="uniform")),
        "multiclass",
        "linear",
    ),
    "bins of float32": (
        lambda: of_numbers(KBinsDiscretizer(4, encode="ordinal", dtype=np.float32)),
        "binary",
        "linear",
    ),
    "bins that take no nulls": (
        lambda: make_pipeline(
            ColumnTransformer([("n", KBinsDiscretizer(3), ["n1", "n2"])]), booster()
        ),
        "binary",
        "lightgbm",
    ),
    "components": (
        lambda: of_numbers(StandardScaler(), PCA(3, whiten=True)),
        "binary",
        "linear",
    ),
    "components of all": (
        lambda: make_pipeline(
            prepared(make_pipeline(SimpleImputer(), StandardScaler()), one_hot()),
            TruncatedSVD(4, random_state=0),
            booster(),
        ),
        "multiclass",
        "lightgbm",
    ),
    "components of products": (
        lambda: of_numbers(
            StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), PCA(4)
        ),
        "binary",
        "linear",
    ),
    "cubes": (
        lambda: of_nulls(
            make_pipeline(
                SimpleImputer(add_indicator=True), StandardScaler(), PolynomialFeatures(3)
            )
        ),
        "binary",
        "lightgbm",
    ),
    "products of different features": (
        lambda: of_numbers(
            StandardScaler(), PolynomialFeatures((2, 3), interaction_only=True), StandardScaler()
        ),
        "multiclass",
        "linear",
    ),
    "selected by a model": (
        lambda: make_pipeline(
            prepared("passthrough", unseen()), SelectFromModel(booster()), booster()
        ),
        "binary",
        "lightgbm",
    ),
    "selected by a test": (
        lambda: make_pipeline(
            prepared(SimpleImputer(), one_hot()), SelectKBest(k=5), LogisticRegression()
        ),
        "binary",
        "linear",
    ),
    "selected of what has no nulls": (
        lambda: make_pipeline(
            ColumnTransformer([("n", "passthrough", ["n1", "n2", "n4"])]),
            SelectKBest(k=1),
            booster(),
        ),
        "binary",
        "lightgbm",
    ),
    "selected by variance": (
        lambda: make_pipeline(
            prepared("passthrough", one_hot()), VarianceThreshold(0.15), booster()
        ),
        "binary",
        "lightgbm",
    ),
    "selected by elimination": (
        lambda: make_pipeline(
            prepared(SimpleImputer(), one_hot()),
            RFE(Ridge(), n_features_to_select=5),
            Ridge(),
        ),
        "regression",
        "linear",
    ),
    "infinity before a scaler": (
        lambda: of_nulls(make_pipeline(FunctionTransformer(np.log), StandardScaler())),
        "binary",
        "lightgbm",
    ),
    "a function that takes no nulls": (
        lambda: make_pipeline(
            ColumnTransformer([("n", FunctionTransformer(np.square, validate=True), ["n1"])]),
            booster(),
        ),
        "binary",
        "lightgbm",
    ),
    "weights of transformers": (
        lambda: make_pipeline(
            ColumnTransformer(
                [
                    ("n", mixed_scales(), list(NUMBERS)),
                    ("t", one_hot(), list(TEXTS)),
                ],
                transformer_weights={"t": 0.3},
            ),
            LogisticRegression(C=0.1),
        ),
        "multiclass",
        "linear",
    ),
    "scales that clip": (lambda: of_numbers(MaxAbsScaler(clip=True)), "binary", "linear"),
    "nulls where training had some": (lambda: of_nulls(MissingIndicator()), "binary", "lightgbm"),
    "tweedie without a logarithm": (
        lambda: make_pipeline(prepared(SimpleImputer(), one_hot()), TweedieRegressor(power=0)),
        "regression",
        "linear",
    ),
    "a step of no columns": (
        lambda: make_pipeline(
            ColumnTransformer([("n", mixed_scales(), list(NUMBERS)), ("b", one_hot(), [])]),
            Ridge(),
        ),
        "regression",
        "linear",
    ),
    "a frozen scaler": (
        lambda: of_nulls(FrozenEstimator(StandardScaler().fit(numbers_of_the_table()))),
        "binary",
        "lightgbm",
    ),
    "encoder: first dropped": (
        lambda: of_texts(one_hot(drop="first")),
        "multiclass",
        "lightgbm",
    ),
    "encoder: one of two dropped": (
        lambda: of_texts(one_hot(drop="if_binary", sparse_output=False)),
        "binary",
        "lightgbm",
    ),
    "encoder: infrequent": (
        lambda: of_texts(one_hot(handle_unknown="infrequent_if_exist", min_frequency=0.11)),
        "binary",
        "lightgbm",
    ),
    "encoder: infrequent dropped": (
        lambda: of_texts(one_hot(max_categories=3, drop="first", handle_unknown="warn")),
        "binary",
        "lightgbm",
    ),
    "encoder: raises": (lambda: of_texts(one_hot(handle_unknown="error")), "binary", "lightgbm"),
    "encoder: raises for the unknown alone": (
        lambda: of_texts(OrdinalEncoder(encoded_missing_value=-2)),
        "binary",
        "lightgbm",
    ),
    "encoder: places of infrequent": (
        lambda: of_texts(unseen(min_frequency=0.11, encoded_missing_value=-5)),
        "binary",
        "lightgbm",
    ),
    "encoder: targets": (lambda: of_texts(TargetEncoder(cv=2)), "binary", "lightgbm"),
}


def mixed_scales() -> Any:
    scales = [("a", StandardScaler()), ("b", MinMaxScaler())]
    return make_pipeline(SimpleImputer(), FeatureUnion(scales, transformer_weights={"b": 2.5}))


def numbers_of_the_table() -> Any:
    return TABLE.select(list(NUMBERS)).to_pandas()


@cache
def pair(name: str) -> Pair:
    made, task, _ = MODELS[name]
    return Pair(made(), task)


NUMBER = st.sampled_from(
    [None, 0.0, -0.0, 1.0, -1.0, 1e-300, 1e12, -1e12, LARGEST, TOO_LARGE, -TOO_LARGE, 1e300, -1e300]
) | st.floats(-1e6, 1e6)
TEXT = st.sampled_from([None, UNSEEN, "", *(f"{name} {n}" for name in TEXTS for n in range(4))])
REAL = list(zip(*(TABLE[name].to_pylist() for name in NAMES), strict=True))


@st.composite
def rows(draw: st.DrawFn) -> list[Any]:
    """A row of the table with some other values."""
    row = list(draw(st.sampled_from(REAL)))
    for place in draw(st.lists(st.integers(0, len(NAMES) - 1), max_size=3)):
        row[place] = draw(TEXT if NAMES[place] in TEXTS else NUMBER)
    return row


@pytest.mark.parametrize("name", MODELS)
@settings(deadline=None, max_examples=8)
@given(asked=st.lists(rows(), min_size=1, max_size=6))
def test_a_compiled_pipeline_says_what_the_fitted_one_says(name: str, asked: list[Any]) -> None:
    found, _ = pair(name).agree(asked)
    assert pair(name).form == MODELS[name][2]
    assert found.holds(1e-6), str(found)


@pytest.mark.parametrize("name", MODELS)
def test_both_say_the_same_at_each_edge_of_each_feature(name: str) -> None:
    asked = [
        [*REAL[1][:place], edge, *REAL[1][place + 1 :]]
        for place, feature in enumerate(NAMES)
        for edge in edges_of(TABLE[feature])
    ]
    found, _ = pair(name).agree(asked)
    assert found.holds(1e-6), str(found)


@pytest.mark.parametrize("name", MODELS)
def test_both_say_the_same_of_infinite_numbers(name: str) -> None:
    asked = [
        [*REAL[1][:place], infinite, *REAL[1][place + 1 :]]
        for place in range(len(NUMBERS))
        for infinite in (np.inf, -np.inf)
    ]
    found, _ = pair(name).agree(asked)
    assert found.holds(1e-6), str(found)


@pytest.mark.parametrize(
    "step",
    [
        StandardScaler(),
        RobustScaler(),
        MinMaxScaler(),
        MaxAbsScaler(),
        SimpleImputer(),
        QuantileTransformer(n_quantiles=9),
    ],
)
def test_a_booster_behind_a_step_that_takes_no_infinity_refuses_it(step: Any) -> None:
    fitted = Pair(of_nulls(step), "binary")
    asked = [[value, *REAL[1][1:]] for value in (np.inf, -np.inf, None, 1e300)]
    found, cases = fitted.agree(asked)
    assert ["infinity" in case.error for case in cases] == [True, True, False, False]
    assert found.holds(1e-6), str(found)


def test_a_split_of_nulls_has_infinite_numbers_on_the_side_of_numbers() -> None:
    rows = np.array([[np.nan], [1.0]] * 50)
    model = HistGradientBoostingRegressor(max_iter=3).fit(rows, np.isnan(rows).ravel() * 1.0)
    asked = np.array([[np.inf], [-np.inf], [np.nan], [1e300]])
    with tempfile.TemporaryDirectory() as name:
        scored([Column(source=0)], model, Path(name))
        for scorer in (ForestScorer(Path(name) / TREES, 1), LightGBMScorer(Path(name) / TREES, 1)):
            assert scorer.score(asked).ravel() == pytest.approx(model.predict(asked), abs=1e-9)


@pytest.mark.parametrize("name", ["forest", "forest of numbers", "extra trees", "a tree"])
def test_forests_refuse_numbers_beyond_float32_and_take_nulls(name: str) -> None:
    row, place = list(REAL[0]), NAMES.index("n1")
    asked = [
        [*row[:place], value, *row[place + 1 :]] for value in (None, LARGEST, TOO_LARGE, -1e300)
    ]
    found, cases = pair(name).agree(asked)
    assert ["too large" in case.error for case in cases] == [False, False, True, True]
    assert found.holds(1e-6), str(found)


@pytest.mark.parametrize(("margin", "answer"), [(709.0, [1.0, 0.0, 0.0]), (710.0, [1 / 3] * 3)])
def test_classes_that_are_all_impossible_are_alike(margin: float, answer: list[float]) -> None:
    """A sigmoid of scikit-learn is 0 where e to the power of its margin is no number any more."""
    made, task, _ = MODELS["calibrated logistic of classes"]
    fresh = Pair(made(), task)
    for part in fresh.native.model.calibrated_classifiers_:
        for number, curve in enumerate(part.calibrators):
            curve.a_, curve.b_ = 0.0, margin + 5.0 * number
    found, cases = fresh.agree(REAL[:3])
    assert cases[0].outputs == pytest.approx(answer)
    assert found.holds(1e-9), str(found)


def test_numbers_next_to_zero_are_told_from_it() -> None:
    """LightGBM takes them for 0; the trees of other libraries do not."""
    rows = np.linspace(-4e-36, 4e-36, 200).reshape(-1, 1)
    model = HistGradientBoostingRegressor(max_iter=3).fit(rows, np.arange(200.0))
    with tempfile.TemporaryDirectory() as name:
        scored([Column(source=0)], model, Path(name))
        scorer = ForestScorer(Path(name) / TREES, 1)
    assert scorer.score(rows).ravel() == pytest.approx(model.predict(rows), abs=1e-9)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@settings(deadline=None, max_examples=8)
@given(asked=st.lists(rows(), min_size=1, max_size=6))
def test_categories_of_histograms_may_be_codes(task: str, asked: list[Any]) -> None:
    found, _ = coded(task).agree(asked)
    assert found.holds(1e-6), str(found)


@cache
def coded(task: str) -> Pair:
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    places = [NAMES.index(name) for name in TEXTS]
    return Pair(kind(max_iter=9, categorical_features=places, max_leaf_nodes=15), task, CODES)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            of_numbers(MinMaxScaler((1, 2)), PowerTransformer("box-cox")),
            "PowerTransformer by box-cox",
        ),
        (calibrated(of_texts(unseen()), "temperature"), "calibration by temperature"),
        (of_numbers(StandardScaler(), SplineTransformer()), "SplineTransformer"),
    ],
)
def test_what_is_not_compiled_is_named(model: Any, reason: str) -> None:
    with pytest.raises(NotCompiled, match=f"{reason} has no compiled form"):
        Pair(model, "binary").compiled()


def test_an_encoder_of_numbers_is_given_those_of_training() -> None:
    """A node reads decimals, and a NaN may be online: the model was trained on float64."""
    known = np.array([[0.1], [0.25], [2.0**53], [np.nan]])
    column = transformed(unseen(encoded_missing_value=-2).fit(known), [Column(source=0)])
    plan = Plan(plan_of(column, is_finite=False), ["rate"])
    given: list[Any] = [
        0.1,
        Decimal("0.10"),
        Decimal("0.250"),
        2**53 + 1,
        np.nan,
        None,
        Decimal("0.3"),
        7,
    ]
    assert plan.matrix([[value] for value in given]).ravel().tolist() == [
        *(0, 0, 1, 2, -2, -2, -1, -1)
    ]
