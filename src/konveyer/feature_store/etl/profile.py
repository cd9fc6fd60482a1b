"""What the values of each feature look like: counts, range and a histogram with its bins."""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

BINS = 20
TOP_VALUES = 10


def profile_values(values: pa.Table) -> dict[str, dict[str, Any]]:
    """By feature: rows, nulls, distinct; numbers (and instants, as microseconds) also minimum,
    maximum, mean and `edges`/`counts` of equal bins, others the most frequent values as
    `labels`/`counts`. Of lists it is their lengths, and `distinct` counts those.

    >>> profile_values(pa.table({"n": [1, 2, None]}))["n"]["nulls"]
    1
    """
    frame = pl.from_arrow(values)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table gives a frame
    return {column.name: _profile(column) for column in frame}


def _profile(column: pl.Series) -> dict[str, Any]:
    known = column.drop_nulls()
    if isinstance(column.dtype, pl.List):
        known = known.list.len()
    base = {"rows": len(column), "nulls": column.null_count(), "distinct": known.n_unique()}
    if column.dtype.is_temporal():
        known = known.to_physical()
    if not known.dtype.is_numeric():
        # A feature may be called `count`, as the other column is.
        top = known.cast(pl.String).alias("value").value_counts(sort=True).head(TOP_VALUES)
        return {**base, "labels": top["value"].to_list(), "counts": top["count"].to_list()}
    numbers = known.cast(pl.Float64).to_numpy()
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {**base, "edges": [], "counts": []}
    counts, edges = _histogram(finite)
    return {
        **base,
        "minimum": float(finite.min()),
        "maximum": float(finite.max()),
        "mean": float((finite / len(finite)).sum()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _histogram(numbers: npt.NDArray[np.float64]) -> tuple[Any, Any]:
    """One bin for numbers that are too close together, or too far apart, for several."""
    low, high = numbers.min(), numbers.max()
    width = high / BINS - low / BINS
    if not np.isfinite(width) or low + width == low or high - width == high:
        return np.array([len(numbers)]), np.array([low, high])
    return np.histogram(numbers, bins=np.linspace(low, high, BINS + 1))
