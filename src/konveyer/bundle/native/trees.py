"""Trees of any library as a model file that LightGBM's C library reads.

One engine then serves all of them. The format is that of LightGBM's `Booster.save_model`, version
v4 (lightgbm.readthedocs.io; src/boosting/gbdt_model_text.cpp and src/io/tree.cpp).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# decision_type: bit 0 asks for categories; bit 1 sends a missing value left; bits 2-3 are 2 when
# NaN is what is missing.
_MISSING_LEFT, _MISSING_RIGHT = 10, 8
_CATEGORICAL = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A node goes left when its feature is at most the threshold; `left` is -1 in a leaf.

    Arrays over nodes, the root first; `missing_left` says where a NaN goes. A node that is in
    `categories` goes left for those whole numbers, and right for all else, also a NaN.
    """

    left: Any
    right: Any
    feature: Any
    threshold: Any
    missing_left: Any
    value: Any
    categories: Mapping[int, Sequence[int]] = field(default_factory=dict)


def constant(value: float) -> Tree:
    none = np.array([-1])
    zero = np.array([0])
    return Tree(
        left=none,
        right=none,
        feature=zero,
        threshold=zero,
        missing_left=zero,
        value=np.array([value]),
    )


def model_text(
    trees: Sequence[Tree],
    *,
    features: int,
    outputs: int,
    objective: str = "",
    mean: bool = False,
    adds_float32: bool = False,
) -> str:
    """`trees` in turns for each output; their sum, or mean, then goes through the objective.

    `objective` is LightGBM's: "binary sigmoid:1", "multiclass num_class:3", "poisson" (exp), or
    nothing, which leaves numbers as they are. Where Konveyer's own predictor reads the text,
    `adds_float32` rounds to it after each tree, and what is nearly 0 is not taken for it, as
    LightGBM does.
    """
    names = " ".join(f"c{place}" for place in range(features))
    head = [
        "tree",
        "version=v4",
        f"num_class={outputs}",
        f"num_tree_per_iteration={outputs}",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        *([f"objective={objective}"] if objective else []),
        *(["average_output"] if mean else []),
        *(["adds_float32"] if adds_float32 else []),
        "sees_small",
        f"feature_names={names}",
        f"feature_infos={' '.join(['[-1:1]'] * features)}",
        "",
        "",
    ]
    body = [_tree_text(place, tree) for place, tree in enumerate(trees)]
    return "\n".join([*head, *body, "end of trees", "", ""])


def _tree_text(place: int, tree: Tree) -> str:
    reached = _reached(tree)
    is_leaf = tree.left[reached] < 0
    inner, leaves = reached[~is_leaf], reached[is_leaf]
    # LightGBM counts inner nodes and leaves apart; a leaf as a child is -1 - its number.
    number = np.empty(len(tree.left), np.int64)
    number[inner] = np.arange(len(inner))
    number[leaves] = -1 - np.arange(len(leaves))
    lines = [f"Tree={place}", f"num_leaves={len(leaves)}", f"num_cat={len(tree.categories)}"]
    if len(inner):
        decisions = np.where(tree.missing_left, _MISSING_LEFT, _MISSING_RIGHT)
        # One that only parts nulls from numbers is infinite: an infinite number is not beyond it.
        thresholds = np.array(tree.threshold, np.float64)
        # The threshold of a node that asks for categories is the place of their set.
        asking = list(tree.categories)
        decisions[asking], thresholds[asking] = _CATEGORICAL, np.arange(len(asking))
        decisions, thresholds = decisions[inner], thresholds[inner]
        lines += _sets(list(tree.categories.values())) if asking else []
        lines += [
            _line("split_feature", tree.feature[inner]),
            _line("threshold", thresholds),
            _line("decision_type", decisions),
            _line("left_child", number[tree.left[inner]]),
            _line("right_child", number[tree.right[inner]]),
        ]
    lines += [_line("leaf_value", tree.value[leaves].astype(np.float64)), "is_linear=0"]
    return "\n".join([*lines, "shrinkage=1", "", ""])


def _reached(tree: Tree) -> Any:
    """All nodes below the root, each after its parent; what XGBoost has pruned is still there."""
    nodes = [0]
    for node in nodes:
        if tree.left[node] >= 0:
            nodes += [int(tree.left[node]), int(tree.right[node])]
    return np.array(nodes)


def _sets(sets: Sequence[Sequence[int]]) -> list[str]:
    """Each a row of bits in words of 32, one behind the other."""
    words: list[int] = []
    ends = [0]
    for chosen in sets:
        bits = sum(1 << number for number in set(chosen))
        words += [bits >> start & 0xFFFFFFFF for start in range(0, max(bits.bit_length(), 1), 32)]
        ends.append(len(words))
    return [_line("cat_boundaries", np.array(ends)), _line("cat_threshold", np.array(words))]


def _line(name: str, values: Any) -> str:
    return f"{name}={' '.join(map(repr, values.tolist()))}"
