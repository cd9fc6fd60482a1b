"""Whether the invariants that an author declares can be checked at all."""

from konveyer.bundle.manifest import Manifest
from konveyer.bundle.release_policy import Invariant
from konveyer.core.errors import KonveyerError, did_you_mean
from konveyer.core.schema import ColumnType, Dtype

_NUMBERS = (ColumnType.INT64, ColumnType.FLOAT64)


class BadInvariant(KonveyerError):
    """An invariant of `model.toml` that says nothing that could be checked."""

    code = "bad_invariant"


def is_movable(dtype: Dtype) -> bool:
    """Whether one value of it is less than another in a way that a model may follow."""
    return dtype.is_number or dtype in (ColumnType.BOOL, ColumnType.TIMESTAMP)


def check_invariants(manifest: Manifest) -> None:
    """Raise for the first invariant that does not fit the model's features and outputs."""
    features = {column.name: column.dtype for column in manifest.service.columns}
    outputs = {one.name: one.dtype for one in manifest.model.outputs}
    for number, invariant in enumerate(manifest.invariants, 1):
        problem, hint = _problem(invariant, features, outputs)
        if problem:
            raise BadInvariant(
                f"Invariant {number} of model.toml ({invariant.kind}): {problem}.", hint=hint
            )


def _problem(
    invariant: Invariant, features: dict[str, Dtype], outputs: dict[str, ColumnType]
) -> tuple[str, str | None]:
    """What is wrong with it and what to do; nothing when it is in order."""
    moves = invariant.kind in ("increasing", "decreasing")
    if moves and invariant.feature not in features:
        named = invariant.feature or ""
        hint = did_you_mean(named, features, otherwise="name a feature of the model's service")
        return (f"the model reads no feature '{named}'" if named else "it names no feature"), hint
    if moves and not is_movable(features[invariant.feature or ""]):
        return f"'{invariant.feature}' is no number", "name a feature that grows"
    if invariant.kind == "range" and invariant.minimum is None and invariant.maximum is None:
        return "it has no limit", "set minimum, maximum or both"
    if invariant.kind == "sum-to-one":
        numbers = all(dtype in _NUMBERS for dtype in outputs.values())
        return ("", None) if numbers else ("an output is no number", "remove the invariant")
    if invariant.output is None and len(outputs) > 1:
        return "it names no output", f"set output to one of {', '.join(outputs)}"
    name = invariant.output or next(iter(outputs))
    if name not in outputs:
        hint = did_you_mean(name, outputs, otherwise=f"it has {', '.join(outputs)}")
        return f"the model has no output '{name}'", hint
    if outputs[name] not in _NUMBERS:
        return f"the output '{name}' is no number", "name one that is"
    return "", None
