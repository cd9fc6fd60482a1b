"""Checks of a view's values against what its definition accepts, before they are published."""

import pyarrow as pa

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.etl.limits import breaches, shown

_EXAMPLES = 3


class CheckFailed(KonveyerError):
    """Values that the definition does not accept; nothing of the run was published."""

    code = "quality_check_failed"


def check_values(view: FeatureView, values: pa.Table) -> None:
    """Raise when any value of `values` (the view's features, and perhaps more) is not acceptable.

    The error tells of what is most often wrong.
    """
    found = [
        (feature.name, breach, breach.places)
        for feature in view.each_feature
        for breach in breaches(feature, values[feature.name])
    ]
    name, breach, places = max(found, key=lambda one: len(one[2]), default=("", None, []))
    if breach is None or not places:
        return
    examples = [shown(values[name][place].as_py()) for place in places[:_EXAMPLES]]
    such_as = "" if breach.rule == "nullable" else f", such as {', '.join(examples)}"
    raise CheckFailed(
        f"Feature view '{view.name}', feature '{name}': {len(places)} value(s) are "
        f"{breach.what}{such_as}.",
        hint="correct the source, or the limits in the definition; nothing was published",
        detail={"feature": name, "check": breach.rule, "values": len(places)},
    )
