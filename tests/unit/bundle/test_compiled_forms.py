"""What a project may return from train(), compiled, says what it said where it was trained."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from konveyer.bundle.compiled import compiled_in
from konveyer.bundle.parity import parity
from konveyer.development.compiling import compile_model
from tests.unit.bundle.workbench import NAMES, Trained, lay_out, run_harness, trained

PIPELINE = """
import lightgbm, xgboost, catboost, numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import *
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import *
from sklearn.impute import SimpleImputer
from sklearn.linear_model import *
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import *
from sklearn.tree import *

def unseen():
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)

def one_hot(**options):
    return OneHotEncoder(handle_unknown="ignore", **options)

def imputed(**options):
    return SimpleImputer(**options)

class Sparse:
    def fit(self, features, labels):
        model = make_pipeline(SimpleImputer(), SGDRegressor(random_state=0)).fit(features, labels)
        model[-1].sparsify()
        return model

class Boosted:
    def fit(self, features, labels):
        return xgboost.train({}, xgboost.DMatrix(features, labels), 20)

class Stopped:
    def fit(self, features, labels):
        taught, held = (xgboost.DMatrix(features[n::2], labels[n::2]) for n in (0, 1))
        options = {"evals": [(held, "held")], "early_stopping_rounds": 5, "verbose_eval": False}
        model = xgboost.train({"eta": 1.0}, taught, 500, **options)
        assert model.best_iteration + 1 < model.num_boosted_rounds() < 500
        return model

def categories(names, categorical):
    kinds = ["c" if place in categorical else "q" for place in range(len(names))]
    return {"feature_types": kinds, "enable_categorical": True, "n_estimators": 20}

def train(features, labels, names, categorical, parameters):
    texts = [names[place] for place in categorical]
    numbers = [name for name in names if name not in texts]
    def prepared(for_numbers, for_texts):
        return ColumnTransformer([("n", for_numbers, numbers), ("t", for_texts, texts)])
    model = MODEL
    return model.fit(features, labels)
"""
SCALED = "prepared(StandardScaler(), unseen())"
FULL = (
    "prepared(make_pipeline(imputed(strategy='median', add_indicator=True), RobustScaler()), "
    "make_pipeline(imputed(strategy='most_frequent'), one_hot()))"
)
ZOO = {
    "the pipeline of the benches": (
        f"make_pipeline({SCALED}, lightgbm.LGBMClassifier(n_estimators=60, verbose=-1))",
        "binary",
        "lightgbm",
    ),
    "lightgbm of classes": (
        (
            "make_pipeline(prepared('passthrough', one_hot(min_frequency=90)), "
            "lightgbm.LGBMClassifier(n_estimators=9, verbose=-1))"
        ),
        "multiclass",
        "lightgbm",
    ),
    "lightgbm of counts": (
        (
            "make_pipeline(prepared('passthrough', TargetEncoder()), "
            "lightgbm.LGBMRegressor(n_estimators=20, objective='poisson', verbose=-1))"
        ),
        "regression",
        "lightgbm",
    ),
    "xgboost": (
        f"make_pipeline({SCALED}, xgboost.XGBClassifier(n_estimators=50))",
        "binary",
        "lightgbm",
    ),
    "xgboost of classes": (
        f"make_pipeline({FULL}, xgboost.XGBClassifier(n_estimators=9))",
        "multiclass",
        "lightgbm",
    ),
    "xgboost of numbers": (
        f"make_pipeline({SCALED}, xgboost.XGBRegressor(n_estimators=20))",
        "regression",
        "lightgbm",
    ),
    "many deep trees of xgboost": (
        f"make_pipeline({SCALED}, xgboost.XGBRegressor(n_estimators=1500, max_depth=8))",
        "regression",
        "lightgbm",
    ),
    "xgboost's booster of codes": ("Boosted()", "regression", "lightgbm"),
    "xgboost's booster that stopped early, of codes": ("Stopped()", "regression", "lightgbm"),
    "categories of xgboost from codes": (
        "xgboost.XGBClassifier(**categories(names, categorical))",
        "multiclass",
        "lightgbm",
    ),
    "one category of xgboost against the others, from codes": (
        "xgboost.XGBClassifier(max_cat_to_onehot=40, **categories(names, categorical))",
        "binary",
        "lightgbm",
    ),
    "few splits by one category of xgboost, from codes": (
        (
            "xgboost.XGBRegressor(max_depth=2, max_cat_to_onehot=40, "
            "**categories(names, categorical) | {'n_estimators': 3})"
        ),
        "regression",
        "lightgbm",
    ),
    "pruned trees of xgboost": (
        f"make_pipeline({SCALED}, xgboost.XGBClassifier(tree_method='exact', gamma=2))",
        "binary",
        "lightgbm",
    ),
    "categories of xgboost behind an encoder": (
        (
            f"make_pipeline({SCALED}, "
            "xgboost.XGBRegressor(**categories(numbers + texts, range(6, 9))))"
        ),
        "regression",
        "lightgbm",
    ),
    "categories of histograms": (
        "HistGradientBoostingClassifier(max_iter=9, categorical_features=texts)",
        "multiclass",
        "lightgbm",
    ),
    "a search": (
        (
            f"GridSearchCV(make_pipeline({SCALED}, lightgbm.LGBMClassifier(verbose=-1)), "
            "{'lgbmclassifier__n_estimators': [5, 9]}, cv=2)"
        ),
        "binary",
        "lightgbm",
    ),
    "catboost": (
        (
            f"make_pipeline({SCALED}, catboost.CatBoostClassifier(iterations=40, verbose=0, "
            "allow_writing_files=False))"
        ),
        "binary",
        "lightgbm",
    ),
    "catboost of classes": (
        (
            f"make_pipeline({FULL}, catboost.CatBoostClassifier(iterations=9, verbose=0, "
            "allow_writing_files=False))"
        ),
        "multiclass",
        "lightgbm",
    ),
    "catboost of numbers": (
        (
            f"make_pipeline({SCALED}, catboost.CatBoostRegressor(iterations=20, verbose=0, "
            "allow_writing_files=False))"
        ),
        "regression",
        "lightgbm",
    ),
    "forest": (
        f"make_pipeline({SCALED}, RandomForestClassifier(20, random_state=0))",
        "binary",
        "lightgbm",
    ),
    "forest that takes no nulls": (
        f"make_pipeline({FULL}, ExtraTreesClassifier(9, random_state=0))",
        "multiclass",
        "lightgbm",
    ),
    "forest of numbers": (
        f"make_pipeline({FULL}, RandomForestRegressor(9, random_state=0))",
        "regression",
        "lightgbm",
    ),
    "boosting": (
        f"make_pipeline({FULL}, GradientBoostingClassifier(n_estimators=20))",
        "binary",
        "lightgbm",
    ),
    "boosting of classes": (
        f"make_pipeline({FULL}, GradientBoostingClassifier(n_estimators=5))",
        "multiclass",
        "lightgbm",
    ),
    "boosting of histograms": (
        f"make_pipeline({SCALED}, HistGradientBoostingClassifier(max_iter=20))",
        "binary",
        "lightgbm",
    ),
    "boosting of histograms of counts": (
        f"make_pipeline({SCALED}, HistGradientBoostingRegressor(max_iter=20, loss='poisson'))",
        "regression",
        "lightgbm",
    ),
    "a tree": (f"make_pipeline({FULL}, DecisionTreeClassifier(max_depth=5))", "binary", "lightgbm"),
    "logistic": (f"make_pipeline({FULL}, LogisticRegression(max_iter=1000))", "binary", "linear"),
    "logistic of classes": (
        f"make_pipeline({FULL}, LogisticRegression(max_iter=1000))",
        "multiclass",
        "linear",
    ),
    "ridge": (
        (
            "make_pipeline(prepared(make_pipeline(imputed(), MinMaxScaler(clip=True), "
            "FunctionTransformer(np.log1p)), one_hot()), Ridge())"
        ),
        "regression",
        "linear",
    ),
    "network": (
        f"make_pipeline({FULL}, MLPClassifier((8,), max_iter=20, random_state=0))",
        "binary",
        "onnx",
    ),
    "network of numbers": (
        f"make_pipeline({FULL}, MLPRegressor(hidden_layer_sizes=(8,), max_iter=20))",
        "regression",
        "onnx",
    ),
    "calibrated": (
        f"make_pipeline({FULL}, CalibratedClassifierCV(LogisticRegression(max_iter=500), cv=3))",
        "multiclass",
        "calibrated",
    ),
    "calibrated boosters of classes": (
        (
            f"CalibratedClassifierCV(make_pipeline({SCALED}, "
            "xgboost.XGBClassifier(n_estimators=9)), cv=2)"
        ),
        "multiclass",
        "calibrated",
    ),
    "calibrated boosters": (
        (
            f"CalibratedClassifierCV(make_pipeline({SCALED}, "
            "lightgbm.LGBMClassifier(n_estimators=9, verbose=-1)), method='isotonic', cv=3)"
        ),
        "binary",
        "calibrated",
    ),
    "calibrated boosting": (
        (
            f"make_pipeline({FULL}, CalibratedClassifierCV("
            "GradientBoostingClassifier(n_estimators=9), cv=2))"
        ),
        "binary",
        "calibrated",
    ),
    "naive bayes": (
        f"make_pipeline({FULL.replace('one_hot()', 'one_hot(sparse_output=False)')}, GaussianNB())",
        "binary",
        "onnx",
    ),
    "poisson": (f"make_pipeline({FULL}, PoissonRegressor())", "regression", "linear"),
}


UNKNOWN = "make_pipeline(prepared(make_pipeline(imputed(), {}), one_hot()), Ridge())"
ISOLATED = {
    UNKNOWN.format("SplineTransformer()"): "SplineTransformer has no compiled form",
    UNKNOWN.format("FunctionTransformer(np.sign)"): "FunctionTransformer of sign",
    "catboost.CatBoostRegressor(iterations=3, grow_policy='Lossguide')": "not symmetric",
    "xgboost.XGBRegressor(n_estimators=3, missing=-1.0)": "takes -1 for a null",
    "CalibratedClassifierCV(xgboost.XGBClassifier(n_estimators=3), method='isotonic', cv=2)": (
        "CalibratedClassifierCV has no ONNX form"
    ),
    "Sparse()": "it cannot be compiled: ",
}


@pytest.fixture(scope="module")
def runs(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """The models of `ZOO` and `ISOLATED`, trained; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    folders = [folder / str(place) for place in range(len(ZOO) + len(ISOLATED))]
    for (name, (model, task, _)), place in zip(ZOO.items(), folders, strict=False):
        given = "codes" if name.endswith("codes") else "frame"
        lay_out(place, PIPELINE.replace("MODEL", model), task=task, given=given)
    for model, place in zip(ISOLATED, folders[len(ZOO) :], strict=True):
        is_of_codes = model.startswith(("catboost", "xgboost", "Sparse", "Calibrated"))
        task = "binary" if "Classifier" in model else "regression"
        given = "codes" if is_of_codes else "frame"
        lay_out(place, PIPELINE.replace("MODEL", model), task=task, given=given)
    return dict(zip([*ZOO, *ISOLATED], run_harness(zoo, folders), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=pytest.mark.slow) if one.startswith("network") else one
        for one in ZOO
    ],
)
def test_a_model_compiles_and_answers_as_it_did_where_it_was_trained(
    name: str, runs: dict[str, Trained], zoo: Path, tmp_path: Path
) -> None:
    run = runs[name]
    manifest = compile_model(run.folder, run.manifest, zoo.parents[2], tmp_path / "draft")
    assert (manifest.model.form, manifest.model.reason) == (ZOO[name][2], "")
    cases = run.golden.cases
    found = parity(compiled_in(tmp_path / "draft", manifest).predict, cases)
    assert found.holds(1e-6), str(found)
    assert len(found.differences) > len(cases) / 2
    assert any(None in case.features for case in cases)
    assert any("\u2205 never seen" in case.features for case in cases)
    assert any(1e300 in case.features for case in cases)
    assert not any(1e300 in case.features for case in cases[: run.golden.real])
    assert all(len(case.features) == len(NAMES) for case in cases)


def test_each_task_is_measured_against_what_labels_alone_tell(runs: dict[str, Trained]) -> None:
    metrics = {
        task: runs[name].result["metrics"]
        for name, task in (
            ("logistic", "binary"),
            ("logistic of classes", "multiclass"),
            ("ridge", "regression"),
        )
    }
    binary = metrics["binary"]
    assert binary["auc"] > 0.8 > binary["auc_label_rate"] == 0.5
    assert binary["log_loss"] < binary["log_loss_label_rate"]
    assert "auc_without_windows" in binary
    classes = metrics["multiclass"]
    assert classes["log_loss"] < classes["log_loss_label_shares"]
    assert classes["accuracy"] > classes["accuracy_label_shares"]
    numbers = metrics["regression"]
    assert numbers["rmse"] < numbers["rmse_mean"]
    assert numbers["mae"] < numbers["mae_median"]


def test_classes_name_the_outputs(runs: dict[str, Trained]) -> None:
    assert runs["logistic of classes"].result["outputs"] == ["high", "low", "middle"]


def test_an_encoder_that_raises_makes_the_compiled_model_refuse_too(
    zoo: Path, tmp_path: Path
) -> None:
    model = f"make_pipeline({FULL.replace('one_hot()', 'OneHotEncoder()')}, LogisticRegression())"
    run = trained(tmp_path / "run", zoo, PIPELINE.replace("MODEL", model))
    refused = [case for case in run.golden.cases if case.error]
    assert refused
    assert all("unknown categories" in case.error for case in refused)
    manifest = compile_model(run.folder, run.manifest, zoo.parents[2], tmp_path / "draft")
    assert manifest.model.form == "linear"


@pytest.mark.parametrize(("model", "reason"), ISOLATED.items())
def test_what_has_no_compiled_form_is_isolated_and_says_why(
    model: str, reason: str, runs: dict[str, Trained], zoo: Path, tmp_path: Path
) -> None:
    run = runs[model]
    manifest = compile_model(run.folder, run.manifest, zoo.parents[2], tmp_path / "draft")
    assert manifest.model.form == "isolated"
    assert reason in manifest.model.reason


def test_a_compiled_form_that_answers_differently_is_not_used(
    runs: dict[str, Trained], zoo: Path, tmp_path: Path
) -> None:
    run = replace(runs["ridge"], folder=tmp_path / "run")
    shutil.copytree(runs["ridge"].folder, run.folder)
    golden = (run.folder / "golden.json").read_text()
    first = run.golden.cases[0].outputs[0]
    (run.folder / "golden.json").write_text(golden.replace(str(first), str(first + 1), 1))
    manifest = compile_model(run.folder, run.manifest, zoo.parents[2], tmp_path / "draft")
    assert manifest.model.form == "isolated"
    assert "its linear form does not answer like the model" in manifest.model.reason
