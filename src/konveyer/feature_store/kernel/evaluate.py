"""What a view's features were at given moments: one function for training and for publishing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.kernel.derived import Operation, derive
from konveyer.feature_store.kernel.errors import NumberOverflow
from konveyer.feature_store.kernel.history import History, codes_in
from konveyer.feature_store.kernel.point_in_time import latest
from konveyer.feature_store.kernel.series import Mask, Series, series_of
from konveyer.feature_store.kernel.spine import Spine
from konveyer.feature_store.kernel.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedFeature:
    """One aggregate: of `column` (None counts rows) where the boolean `filter_column` is true.

    `over_us` is None for a window that reaches back to the entity's first row.
    """

    name: str
    function: AggregationFunction
    over_us: int | None
    column: str | None
    filter_column: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedFeature:
    """A ratio or a difference of two windowed features, by their names."""

    name: str
    operation: Operation
    left: str
    right: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """How to evaluate a view: `windowed` and `derived` features, or the newest row's `columns`.

    With `refresh_us` values are those of the last whole refresh before the moment asked for;
    0 gives them exactly at that moment.
    """

    keys: tuple[str, ...]
    windowed: tuple[WindowedFeature, ...] = ()
    derived: tuple[DerivedFeature, ...] = ()
    columns: tuple[str, ...] = ()
    ttl_us: int | None = None
    refresh_us: int = 0
    as_known: bool = True


def last_refresh(at_us: Ints, refresh_us: int) -> Ints:
    """The last whole refresh at or before each moment, counted from 1970; `at_us` itself for 0.

    >>> last_refresh(np.array([25, -1]), 10).tolist()
    [20, -10]
    """
    return at_us // refresh_us * refresh_us if refresh_us else at_us


def evaluate(plan: ViewPlan, history: History, spine: Spine) -> pa.Table:
    """The plan's features for each row of `spine`, in its order.

    A row's TTL is counted from the moment asked for, its newest value from the last refresh: so a
    value read online at that moment is the same.
    """
    codes = codes_in(history, spine.entities)[spine.codes]
    published_us = last_refresh(spine.at_us, plan.refresh_us)
    if plan.windowed:
        return _windowed(plan, history, codes, published_us)
    rows = latest(
        history,
        codes,
        published_us,
        oldest_us=None if plan.ttl_us is None else spine.at_us - plan.ttl_us,
        as_known=plan.as_known,
    )
    return history.rows.select(list(plan.columns)).take(pa.array(rows, mask=rows < 0))


def _windowed(plan: ViewPlan, history: History, codes: Ints, at_us: Ints) -> pa.Table:
    lengths = {feature.over_us for feature in plan.windowed}
    windows = Windows(history, codes, at_us, lengths, as_known=plan.as_known)
    series = _series(plan, history)
    ranges = {
        (over_us, column, condition): windows.over(over_us, series[column, condition])
        for over_us, column, condition in {
            (feature.over_us, feature.column, feature.filter_column) for feature in plan.windowed
        }
    }
    features: dict[str, pa.Array] = {}
    for feature in plan.windowed:
        window = ranges[feature.over_us, feature.column, feature.filter_column]
        # Of infinite values what IEEE 754 says is the answer, and no news.
        with _naming(feature.name), np.errstate(invalid="ignore", over="ignore"):
            features[feature.name] = window.aggregate(feature.function)
    for derived in plan.derived:
        left, right = features[derived.left], features[derived.right]
        with _naming(derived.name):
            features[derived.name] = derive(derived.operation, left, right)
    return pa.table(features)


@contextmanager
def _naming(feature: str) -> Iterator[None]:
    try:
        yield
    except NumberOverflow as error:
        error.message = f"Feature '{feature}': {error.message}"
        raise


def _series(plan: ViewPlan, history: History) -> dict[tuple[str | None, str | None], Series]:
    """One for each column and filter that the plan names, for all windows over it."""
    rows = len(history.event_us)
    passes: dict[str | None, Mask | None] = {None: None}
    for name in {feature.filter_column for feature in plan.windowed} - {None}:
        passes[name] = np.asarray(history.rows.column(name).fill_null(False).to_numpy())
    return {
        (column, condition): series_of(
            None if column is None else history.rows.column(column), passes[condition], rows
        )
        for column, condition in {(f.column, f.filter_column) for f in plan.windowed}
    }
