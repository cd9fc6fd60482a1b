"""A push and an ETL run accept the same values."""

from math import inf, nan
from typing import Any

import pyarrow as pa
import pytest

from konveyer import Feature, FeatureView
from konveyer.feature_store.etl.limits import outside
from konveyer.feature_store.etl.quality import CheckFailed, check_values


@pytest.mark.parametrize("value", [None, nan, inf, -inf, -1.0, 0.0, 1.0])
@pytest.mark.parametrize(
    "limits",
    [{}, {"nullable": False}, {"minimum": 0}, {"maximum": 0}, {"minimum": 0, "nullable": False}],
)
def test_what_is_no_number_passes_both_or_neither(value: float | None, limits: Any) -> None:
    feature = Feature(name="rate", dtype="float64", **limits)
    view = FeatureView(name="rates", entity="client", sql="SELECT 1", features=(feature,))
    values = pa.table({"rate": pa.array([value], pa.float64())})
    if list(outside(feature, values["rate"])):
        with pytest.raises(CheckFailed):
            check_values(view, values)
    else:
        check_values(view, values)
