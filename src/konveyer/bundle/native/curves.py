"""What transformers of scikit-learn make of each number by itself: powers, ranks and bins."""

from typing import Any

import numpy as np

from konveyer.bundle.native.columns import Column, NotCompiled

Columns = list[Column]


def _power(step: Any, columns: Columns) -> Columns:
    if step.method != "yeo-johnson":
        message = f"PowerTransformer by {step.method} has no compiled form"
        raise NotCompiled(message)
    powered = [
        one.then_no_infinity().then("power", float(power))
        for one, power in zip(columns, step.lambdas_, strict=True)
    ]
    if not step.standardize:
        return powered
    scaler = step._scaler  # noqa: SLF001 - there is no public one
    return [
        one.then_no_infinity().then("shift_divide", float(mean), float(scale))
        for one, mean, scale in zip(powered, scaler.mean_, scaler.scale_, strict=True)
    ]


def _quantile(step: Any, columns: Columns) -> Columns:
    kind = "scores" if step.output_distribution == "normal" else "ranks"
    return [
        one.then_no_infinity().then(kind, quantiles.tolist())
        for one, quantiles in zip(columns, step.quantiles_.T, strict=True)
    ]


def _bins(step: Any, columns: Columns) -> Columns:
    """The number of the bin, or whether it is this one; bins are closed on the left."""
    found: Columns = []
    for one, edges in zip(columns, step.bin_edges_, strict=True):
        inner = edges[1:-1].tolist()
        checked = (one.then("float32") if step.dtype == np.float32 else one).then("finite")
        if step.encode == "ordinal":
            found.append(checked.then("bins", inner))
            continue
        ends = zip([-np.inf, *inner], [*inner, np.inf], strict=True)
        found += [checked.then("within", low, high) for low, high in ends]
    return found


RULES = {
    "PowerTransformer": _power,
    "QuantileTransformer": _quantile,
    "KBinsDiscretizer": _bins,
}
