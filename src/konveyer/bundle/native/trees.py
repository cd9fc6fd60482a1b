"""Trees of any library as a model file that LightGBM's C library reads.

One engine then serves all of them. The format is that of LightGBM's `Booster.save_model`, version
v4 (lightgbm.readthedocs.io; src/boosting/gbdt_model_text.cpp and src/io/tree.cpp).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# decision_type: bit 1 sends a missing value left, bits 2-3 are 2 when NaN is what is missing.
_MISSING_LEFT, _MISSING_RIGHT = 10, 8
_MOST = np.finfo(np.float64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A node goes left when its feature is at most the threshold; `left` is -1 in a leaf.

    Arrays over nodes, the root first; `missing_left` says where a NaN goes.
    """

    left: Any
    right: Any
    feature: Any
    threshold: Any
    missing_left: Any
    value: Any


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
    trees: Sequence[Tree], *, features: int, outputs: int, objective: str = "", mean: bool = False
) -> str:
    """`trees` in turns for each output; their sum, or mean, then goes through the objective.

    `objective` is LightGBM's: "binary sigmoid:1", "multiclass num_class:3", "poisson" (exp), or
    nothing, which leaves numbers as they are.
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
        f"feature_names={names}",
        f"feature_infos={' '.join(['[-1:1]'] * features)}",
        "",
        "",
    ]
    body = [_tree_text(place, tree) for place, tree in enumerate(trees)]
    return "\n".join([*head, *body, "end of trees", "", ""])


def _tree_text(place: int, tree: Tree) -> str:
    inner = np.flatnonzero(tree.left >= 0)
    leaves = np.flatnonzero(tree.left < 0)
    # LightGBM counts inner nodes and leaves apart; a leaf as a child is -1 - its number.
    number = np.empty(len(tree.left), np.int64)
    number[inner] = np.arange(len(inner))
    number[leaves] = -1 - np.arange(len(leaves))
    lines = [f"Tree={place}", f"num_leaves={len(leaves)}", "num_cat=0"]
    if len(inner):
        decisions = np.where(tree.missing_left[inner], _MISSING_LEFT, _MISSING_RIGHT)
        thresholds = np.clip(tree.threshold[inner].astype(np.float64), -_MOST, _MOST)
        lines += [
            _line("split_feature", tree.feature[inner]),
            _line("threshold", thresholds),
            _line("decision_type", decisions),
            _line("left_child", number[tree.left[inner]]),
            _line("right_child", number[tree.right[inner]]),
        ]
    lines += [_line("leaf_value", tree.value[leaves].astype(np.float64)), "is_linear=0"]
    return "\n".join([*lines, "shrinkage=1", "", ""])


def _line(name: str, values: Any) -> str:
    return f"{name}={' '.join(map(repr, values.tolist()))}"
