"""The features that a candidate would have had for requests that production has answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from konveyer.bundle.values import exact_feature
from konveyer.core.schema import Column, ColumnType, DecimalType, Dtype
from konveyer.execution.releases.observed import Row
from konveyer.feature_store.definitions.resolved import ResolvedFeature, ResolvedService

Values = Sequence[Any]
# From keys, request fields and moments to the features that there were: a row for each.
Retrieve = Callable[[Sequence[Values], Sequence[Values], Sequence[int]], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Then:
    """The features of logged rows, as a node reads them, in the order of the candidate's service.

    `retrieved` names those that the log of some row does not have: the feature store was asked what
    they were at the time of the request.
    """

    rows: list[tuple[Any, ...]]
    retrieved: tuple[str, ...]


def as_read(features: Values, columns: Sequence[Column]) -> tuple[Any, ...]:
    """The features of a logged row as a node reads them: the log has decimals and infinite numbers
    as text, of which a model knows none.
    """
    return tuple(
        _as_read(value, column.dtype) for value, column in zip(features, columns, strict=True)
    )


def _as_read(value: Any, dtype: Dtype) -> Any:
    if isinstance(dtype, DecimalType):
        return exact_feature(value, dtype)
    return float(value) if dtype is ColumnType.FLOAT64 and isinstance(value, str) else value


def features_then(
    wanted: ResolvedService,
    rows: Sequence[Row],
    services: Mapping[str, ResolvedService],
    retrieve: Retrieve,
) -> Then:
    """What was recorded, where it is of `wanted` too or the caller gave it; what the feature store
    finds elsewhere.

    `services` are those of the bundles that answered, by digest.
    """
    same = {digest: same_features(wanted, service) for digest, service in services.items()}
    names = [feature.name for feature in wanted.features]
    known = [
        same[row["bundle"]] | _given(row, names, services[row["bundle"]].features) for row in rows
    ]
    # Who asks without keys has given all that there is.
    lacking = [
        len(places) < len(names) and row["keys"] is not None
        for row, places in zip(rows, known, strict=True)
    ]
    asked = [row for row, lacks in zip(rows, lacking, strict=True) if lacks]
    inputs = [_inputs(row, services[row["bundle"]]) for row in asked]
    retrieved = iter(
        retrieve(
            [tuple(one.get(key.name) for key in wanted.keys) for one in inputs],
            [tuple(one.get(field.name) for field in wanted.request) for one in inputs],
            [row["at_us"] for row in asked],
        )
        if asked
        else ()
    )
    found = []
    new: set[int] = set()
    for row, places, lacks in zip(rows, known, lacking, strict=True):
        features = [*next(retrieved)] if lacks else [None] * len(names)
        for place, recorded in places.items():
            features[place] = row["features"][recorded]
        found.append(as_read(features, wanted.columns))
        if lacks:
            new |= set(range(len(names))) - places.keys()
    return Then(rows=found, retrieved=tuple(names[place] for place in sorted(new)))


def _given(row: Row, names: Sequence[str], recorded: Sequence[ResolvedFeature]) -> dict[int, int]:
    """Where the features among `names` are that the caller gave, whatever their view is now."""
    given = set(row["given"] or ())
    at = {feature.name: place for place, feature in enumerate(recorded) if feature.name in given}
    return {place: at[name] for place, name in enumerate(names) if name in at}


def same_features(wanted: ResolvedService, recorded: ResolvedService) -> dict[int, int]:
    """Where `recorded` has features of `wanted`: those of the same version of the same view.

    On-demand ones are the same when what they are computed from is too.
    """
    before = _versions(recorded)
    same = {view for view, version in _versions(wanted).items() if before.get(view) == version}
    same -= {
        view.name for view in wanted.on_demand if any(one.view not in same for one in view.inputs)
    }
    places = {(one.view, one.feature): place for place, one in enumerate(recorded.features)}
    return {
        place: places[one.view, one.feature]
        for place, one in enumerate(wanted.features)
        if one.view in same and (one.view, one.feature) in places
    }


def _versions(service: ResolvedService) -> dict[str, str]:
    stored = {view.name: view.version for view in service.views}
    return stored | {view.name: view.version for view in service.on_demand}


def _inputs(row: Row, service: ResolvedService) -> dict[str, Any]:
    """The join keys and request fields of a row, by their names."""
    keys = zip((key.name for key in service.keys), row["keys"], strict=True)
    fields = zip((field.name for field in service.request), row["request"] or (), strict=True)
    return dict(keys) | dict(fields)
