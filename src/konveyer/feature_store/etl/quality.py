"""Checks of a view's values against what its definition accepts, with pandera."""

import sys
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any

import polars as pl
import pyarrow as pa

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.aggregation import Aggregation
from konveyer.feature_store.definitions.derived import Derived
from konveyer.feature_store.definitions.view import Feature, FeatureView
from konveyer.feature_store.etl.limits import bound


class CheckFailed(KonveyerError):
    """Values that the definition does not accept; nothing of the run was published."""

    code = "quality_check_failed"


def check_values(view: FeatureView, values: pa.Table) -> None:
    """Raise when any value of `values` (the view's features) is not acceptable."""
    # Not with pandera, which takes NaN for a null.
    for feature in view.features:
        nulls = values[feature.name].null_count
        if nulls and not feature.nullable:
            raise _failed(view, feature.name, "not_nullable", nulls, [None])
    pandera = _pandera()
    frame = pl.from_arrow(values)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table gives a frame
    columns = {
        feature.name: pandera.Column(
            checks=list(_checks(pandera, feature, values.schema.field(feature.name).type)),
            nullable=True,
        )
        for feature in view.each_feature
    }
    try:
        pandera.DataFrameSchema(columns).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        worst = cases.group_by("column", "check").len().sort("len", descending=True).row(0)
        feature, check, count = worst
        examples = cases.filter((pl.col("column") == feature) & (pl.col("check") == check))
        shown = examples["failure_case"].head(3).to_list()
        raise _failed(view, feature, check, count, shown) from error


def _failed(
    view: FeatureView, feature: str, check: str, count: int, examples: Sequence[object]
) -> CheckFailed:
    return CheckFailed(
        f"Feature view '{view.name}', feature '{feature}': {count} value(s) fail {check}, such as "
        f"{examples}.",
        hint="correct the source, or the limits in the definition; nothing was published",
        detail={"feature": feature, "check": check, "values": count},
    )


def _checks(
    pandera: Any, feature: Feature | Aggregation | Derived, kind: pa.DataType
) -> Iterator[Any]:
    if feature.minimum is not None:
        yield pandera.Check.ge(bound(feature.minimum, kind, ROUND_CEILING).as_py())
    if feature.maximum is not None:
        yield pandera.Check.le(bound(feature.maximum, kind, ROUND_FLOOR).as_py())
    if isinstance(feature, Feature) and feature.one_of:
        yield pandera.Check.isin(list(feature.one_of))


def _pandera() -> Any:
    """pandera for Polars, without the pandas of Spark: it would patch that, in seconds."""
    blocked = "pyspark.pandas" not in sys.modules
    if blocked:
        sys.modules["pyspark.pandas"] = None  # type: ignore[assignment]
    try:
        import pandera.polars as pandera
    finally:
        if blocked:
            del sys.modules["pyspark.pandas"]
    return pandera
