"""The trees of scikit-learn, XGBoost and CatBoost models, and what becomes of their sum."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from konveyer.bundle.native.columns import NotCompiled
from konveyer.bundle.native.trees import Tree, constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Trees in turns for each output. `reads_float32`: features are rounded to it first;
    `adds_float32`: so is the sum, after each tree.

    `is_finite`: a null is refused; `is_bounded`: what is infinite, then, is. `categorical` columns
    are given as `Column.as_category` has them. `encoder` turns the columns that are `encoded` into
    numbers before all, and moves them to the front.
    """

    trees: list[Tree]
    outputs: int
    objective: str
    mean: bool = False
    reads_float32: bool = True
    adds_float32: bool = False
    is_finite: bool = False
    is_bounded: bool = False
    categorical: frozenset[int] = frozenset()
    encoder: Any = None
    encoded: Sequence[bool] = ()


def ensemble_of(model: Any) -> Ensemble | None:
    """The trees of `model`; None when it has none that are known here."""
    rule = RULES.get((type(model).__module__.partition(".")[0], type(model).__name__))
    return None if rule is None else rule(model)


def _sklearn_tree(tree: Any, value: Any, *, scale: float = 1.0) -> Tree:
    return Tree(
        left=tree.children_left,
        right=tree.children_right,
        feature=tree.feature,
        threshold=tree.threshold,
        missing_left=tree.missing_go_to_left,
        value=value * scale,
    )


def _forest(model: Any) -> Ensemble:
    return _averaged(model, model.estimators_)


def _single_tree(model: Any) -> Ensemble:
    return _averaged(model, [model])


def _averaged(model: Any, estimators: Any) -> Ensemble:
    """Classifiers give the share of each class in a leaf; of two classes, that of the second."""
    is_classifier = hasattr(model, "classes_")
    if getattr(model, "n_outputs_", 1) != 1:
        message = f"{type(model).__name__} of several targets has no compiled form"
        raise NotCompiled(message)
    trees: list[Tree] = []
    outputs = 1
    for one in estimators:
        values = one.tree_.value[:, 0, :]
        if is_classifier:
            values = values / values.sum(axis=1, keepdims=True)
            if values.shape[1] == 2:
                values = values[:, 1:]
        outputs = values.shape[1]
        trees += [_sklearn_tree(one.tree_, values[:, k]) for k in range(outputs)]
    return Ensemble(
        trees=trees,
        outputs=outputs,
        objective="",
        mean=True,
        is_finite=not model.__sklearn_tags__().input_tags.allow_nan,
        is_bounded=True,
    )


def _gradient_boosting(model: Any) -> Ensemble:
    rows = np.zeros((1, model.n_features_in_), np.float32)
    start = model._raw_predict_init(rows)[0]  # noqa: SLF001 - there is no public one
    if type(model.init_).__name__ not in ("DummyClassifier", "DummyRegressor", "str"):
        message = "gradient boosting that starts from another model has no compiled form"
        raise NotCompiled(message)
    trees = [constant(float(value)) for value in np.ravel(start)]
    for stage in model.estimators_:
        trees += [
            _sklearn_tree(one.tree_, one.tree_.value[:, 0, 0], scale=model.learning_rate)
            for one in stage
        ]
    outputs = model.estimators_.shape[1]
    objective = _link(outputs, is_classifier=hasattr(model, "classes_"))
    if model.loss == "exponential":
        objective = "binary sigmoid:2"
    return Ensemble(trees=trees, outputs=outputs, objective=objective, is_finite=True)


def _link(outputs: int, *, is_classifier: bool) -> str:
    if not is_classifier:
        return ""
    return "binary sigmoid:1" if outputs == 1 else f"multiclass num_class:{outputs}"


def _histogram_boosting(model: Any) -> Ensemble:
    trees = [constant(float(value)) for value in np.ravel(model._baseline_prediction)]  # noqa: SLF001
    known, places = model._bin_mapper.make_known_categories_bitsets()  # noqa: SLF001
    for stage in model._predictors:  # noqa: SLF001 - there is no public one
        trees += [_histogram_tree(one, known, places) for one in stage]
    outputs = len(model._predictors[0])  # noqa: SLF001
    objective = _link(outputs, is_classifier=hasattr(model, "classes_"))
    if not objective and model.loss in ("poisson", "gamma"):
        objective = "poisson"
    encoded = getattr(model, "is_categorical_", None)
    steps = {} if encoded is None else model._preprocessor.named_transformers_  # noqa: SLF001
    return Ensemble(
        trees=trees,
        outputs=outputs,
        objective=objective,
        reads_float32=False,
        encoder=steps.get("encoder"),
        encoded=() if encoded is None else encoded.tolist(),
    )


def _histogram_tree(predictor: Any, known: Any, places: Any) -> Tree:
    """A null, and a category that training never saw, go where missing values go: to the right
    here, so that the categories which go left are those of the other side.
    """
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(bool)
    left, right = (
        np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")
    )
    categories = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf).tolist():
        chosen = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        if nodes["missing_go_to_left"][node]:
            chosen = known[places[nodes["feature_idx"][node]]] & ~chosen
            left[node], right[node] = right[node], left[node]
        categories[node] = _numbers_in(chosen)
    return Tree(
        left=left,
        right=right,
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        missing_left=nodes["missing_go_to_left"],
        value=nodes["value"],
        categories=categories,
    )


def _numbers_in(words: Any) -> list[int]:
    bits = np.unpackbits(np.ascontiguousarray(words, "<u4").view(np.uint8), bitorder="little")
    return [int(number) for number in np.flatnonzero(bits)]


def _xgboost_wrapper(model: Any) -> Ensemble:
    if model.missing is not None and not np.isnan(model.missing):
        message = f"XGBoost that takes {model.missing:g} for a null has no compiled form"
        raise NotCompiled(message)
    return _xgboost(model.get_booster())


_XGBOOST_LINKS = {
    "binary:logistic": "binary sigmoid:1",
    "reg:logistic": "binary sigmoid:1",
    "reg:squarederror": "",
    "reg:absoluteerror": "",
    "reg:pseudohubererror": "",
    "count:poisson": "poisson",
    "reg:gamma": "poisson",
    "reg:tweedie": "poisson",
}


def _xgboost_alone(booster: Any) -> Ensemble:
    """Its data refuses what is infinite in float32; the wrappers go past that."""
    return replace(_xgboost(booster), is_bounded=True)


def _xgboost(booster: Any) -> Ensemble:
    """Goes left below its threshold; both are float32, so the number before it says the same.

    Trees after the best iteration are not asked, as in `NativeModel`.
    """
    best = booster.attr("best_iteration")
    booster = booster if best is None else booster[: int(best) + 1]
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    booster_json, name = learner["gradient_booster"], learner["objective"]["name"]
    classes = int(learner["learner_model_param"]["num_class"] or 0)
    if name.startswith("multi:soft"):
        link = f"multiclass num_class:{classes}"
    elif name in _XGBOOST_LINKS:
        link = _XGBOOST_LINKS[name]
    else:
        message = f"XGBoost's objective {name} has no compiled form"
        raise NotCompiled(message)
    if "model" not in booster_json or booster_json["name"] != "gbtree":
        message = f"XGBoost's booster {booster_json['name']} has no compiled form"
        raise NotCompiled(message)
    outputs = max(classes, 1)
    base = _base_scores(learner["learner_model_param"]["base_score"], link, outputs)
    by_output: list[list[Tree]] = [[constant(value)] for value in base]
    model = booster_json["model"]
    asked: set[int] = set()
    for tree, group in zip(model["trees"], model["tree_info"], strict=True):
        by_output[group].append(_xgboost_tree(tree))
        asked |= {tree["split_indices"][node] for node in tree["categories_nodes"]}
    if len({len(trees) for trees in by_output}) != 1:
        message = "XGBoost trees that differ in number have no compiled form"
        raise NotCompiled(message)
    trees = [tree for turn in zip(*by_output, strict=True) for tree in turn]
    return Ensemble(
        trees=trees,
        outputs=outputs,
        objective=link,
        adds_float32=True,
        categorical=frozenset(asked),
    )


def _base_scores(text: str, link: str, outputs: int) -> list[float]:
    """The margin that trees add to; XGBoost keeps it behind the link."""
    numbers = np.atleast_1d(np.array(json.loads(text), np.float64))
    with np.errstate(divide="ignore"):
        if link.startswith("binary"):
            numbers = -np.log(1 / numbers - 1)
        elif link == "poisson":
            numbers = np.log(numbers)
    return np.broadcast_to(numbers.astype(np.float32), outputs).astype(float).tolist()  # type: ignore[no-any-return]


def _categories(tree: dict[str, Any]) -> dict[int, list[int]]:
    """The categories that go right, for each node that asks for some."""
    segments = zip(
        tree["categories_nodes"],
        tree["categories_segments"],
        tree["categories_sizes"],
        strict=True,
    )
    return {node: tree["categories"][start : start + size] for node, start, size in segments}


def _xgboost_tree(tree: dict[str, Any]) -> Tree:
    """A node of categories changes its sides: they go right, what training never saw left, and a
    null as the node says. Categories are counted from 1 here, since 0 is a null.
    """
    conditions = np.array(tree["split_conditions"], np.float32)
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    categories = {}
    for node, chosen in _categories(tree).items():
        null = [] if tree["default_left"][node] else [0]
        categories[node] = [*null, *(number + 1 for number in chosen)]
        left[node], right[node] = right[node], left[node]
    return Tree(
        left=left,
        right=right,
        feature=np.array(tree["split_indices"]),
        threshold=np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64),
        missing_left=np.array(tree["default_left"]),
        value=conditions.astype(np.float64),
        categories=categories,
    )


_CATBOOST_LINKS = {
    "Logloss": "binary sigmoid:1",
    "CrossEntropy": "binary sigmoid:1",
    "RMSE": "",
    "MAE": "",
    "Quantile": "",
    "Poisson": "poisson",
    "Tweedie": "poisson",
}


def _catboost(model: Any) -> Ensemble:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        content = json.loads(file.read_text())
    if content["features_info"].get("categorical_features"):
        message = "categories of CatBoost's own have no compiled form; use an encoder"
        raise NotCompiled(message)
    if "oblivious_trees" not in content:
        message = "trees of CatBoost that are not symmetric have no compiled form"
        raise NotCompiled(message)
    scale, bias = content["scale_and_bias"]
    outputs = len(bias)
    loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
    link = f"multiclass num_class:{outputs}" if loss == "MultiClass" else _CATBOOST_LINKS.get(loss)
    if link is None:
        message = f"CatBoost's loss {loss} has no compiled form"
        raise NotCompiled(message)
    floats = content["features_info"]["float_features"]
    missing_left = {f["feature_index"]: f["nan_value_treatment"] != "AsTrue" for f in floats}
    places = {f["feature_index"]: f["flat_feature_index"] for f in floats}
    trees = [constant(float(value)) for value in bias]
    for one in content["oblivious_trees"]:
        trees += _oblivious(one, outputs, places, missing_left, scale)
    return Ensemble(trees=trees, outputs=outputs, objective=link)


def _oblivious(
    tree: dict[str, Any],
    outputs: int,
    places: dict[int, int],
    missing_left: dict[int, bool],
    scale: float,
) -> list[Tree]:
    """A symmetric tree: all nodes of a level ask the same; split n is bit n of the leaf's place.

    The level of the last split is the root, so that leaves stand in order.
    """
    splits = list(reversed(tree["splits"] or []))
    depth = len(splits)
    inner = 2**depth - 1
    levels = np.array([(node + 1).bit_length() - 1 for node in range(inner)], int)
    leaves = np.full(2**depth, -1)
    children = np.arange(inner)
    floats = np.array([split["float_feature_index"] for split in splits] or [0])
    borders = np.array([split["border"] for split in splits] or [0.0], np.float64)
    padding = np.zeros(2**depth, int)
    values = np.array(tree["leaf_values"], np.float64).reshape(2**depth, outputs) * scale
    features = [places[int(place)] for place in floats] if depth else [0]
    lefts = [missing_left[int(place)] for place in floats] if depth else [True]
    return [
        Tree(
            left=np.append(children * 2 + 1, leaves),
            right=np.append(children * 2 + 2, leaves),
            feature=np.append(np.array(features)[levels], padding),
            threshold=np.append(borders[levels], padding),
            missing_left=np.append(np.array(lefts)[levels], padding),
            value=np.append(np.zeros(inner), values[:, output]),
        )
        for output in range(outputs)
    ]


Rule = Callable[[Any], Ensemble]
RULES: dict[tuple[str, str], Rule] = {
    ("sklearn", "RandomForestClassifier"): _forest,
    ("sklearn", "RandomForestRegressor"): _forest,
    ("sklearn", "ExtraTreesClassifier"): _forest,
    ("sklearn", "ExtraTreesRegressor"): _forest,
    ("sklearn", "DecisionTreeClassifier"): _single_tree,
    ("sklearn", "DecisionTreeRegressor"): _single_tree,
    ("sklearn", "GradientBoostingClassifier"): _gradient_boosting,
    ("sklearn", "GradientBoostingRegressor"): _gradient_boosting,
    ("sklearn", "HistGradientBoostingClassifier"): _histogram_boosting,
    ("sklearn", "HistGradientBoostingRegressor"): _histogram_boosting,
    ("xgboost", "Booster"): _xgboost_alone,
    ("xgboost", "XGBClassifier"): _xgboost_wrapper,
    ("xgboost", "XGBRegressor"): _xgboost_wrapper,
    ("xgboost", "XGBRFClassifier"): _xgboost_wrapper,
    ("xgboost", "XGBRFRegressor"): _xgboost_wrapper,
    ("catboost", "CatBoost"): _catboost,
    ("catboost", "CatBoostClassifier"): _catboost,
    ("catboost", "CatBoostRegressor"): _catboost,
}
