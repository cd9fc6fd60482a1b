"""Checks of a view's values against what its definition accepts, with pandera."""

import sys
from collections.abc import Iterator
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
    pandera = _pandera()
    frame = pl.from_arrow(values)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table gives a frame
    columns = {
        feature.name: pandera.Column(
            checks=list(_checks(pandera, feature, values.schema.field(feature.name).type)),
            nullable=not isinstance(feature, Feature) or feature.nullable,
        )
        for feature in view.each_feature
    }
    try:
        pandera.DataFrameSchema(columns).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        worst = cases.group_by("column", "check").len().sort("len", descending=True).row(0)
        examples = cases.filter((pl.col("column") == worst[0]) & (pl.col("check") == worst[1]))
        raise CheckFailed(
            f"Feature view '{view.name}', feature '{worst[0]}': {worst[2]} value(s) fail "
            f"{worst[1]}, such as {examples['failure_case'].head(3).to_list()}.",
            hint="correct the source, or the limits in the definition; nothing was published",
            detail={"feature": worst[0], "check": worst[1], "values": worst[2]},
        ) from error


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
