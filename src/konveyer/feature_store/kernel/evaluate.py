"""What a view's features were at given moments: one function for training and for publishing."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.kernel.history import History, Ints, codes_in
from konveyer.feature_store.kernel.point_in_time import latest
from konveyer.feature_store.kernel.windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedFeature:
    """One aggregate: of `column` (None counts rows) where the boolean `filter_column` is true."""

    name: str
    function: AggregationFunction
    over_us: int
    column: str | None
    filter_column: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewPlan:
    """How to evaluate a view: `windowed` features, or else the newest row's `columns`.

    With `refresh_us` values are those of the last whole refresh before the moment asked for;
    0 gives them exactly at that moment.
    """

    keys: tuple[str, ...]
    windowed: tuple[WindowedFeature, ...] = ()
    columns: tuple[str, ...] = ()
    ttl_us: int | None = None
    refresh_us: int = 0
    as_known: bool = True

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.windowed) or self.columns


def last_refresh(at_us: Ints, refresh_us: int) -> Ints:
    """The last whole refresh at or before each moment, counted from 1970; `at_us` itself for 0.

    >>> last_refresh(np.array([25, -1]), 10).tolist()
    [20, -10]
    """
    return at_us // refresh_us * refresh_us if refresh_us else at_us


def evaluate(plan: ViewPlan, history: History, spine: pa.Table, at_us: Ints) -> pa.Table:
    """The plan's features for each row of `spine` (its join keys) at `at_us`, in spine order.

    A row's TTL is counted from the moment asked for, its newest value from the last refresh: so a
    value read online at that moment is the same.
    """
    codes = codes_in(history, spine)
    published_us = last_refresh(at_us, plan.refresh_us)
    if plan.windowed:
        return _windowed(plan, history, codes, published_us)
    oldest_us = None if plan.ttl_us is None else at_us - plan.ttl_us
    rows = latest(history, codes, published_us, oldest_us=oldest_us, as_known=plan.as_known)
    return history.rows.select(list(plan.columns)).take(pa.array(rows, mask=rows < 0))


def _windowed(plan: ViewPlan, history: History, codes: Ints, at_us: Ints) -> pa.Table:
    ranges = {
        over_us: Windows(history, codes, at_us, over_us, as_known=plan.as_known)
        for over_us in {feature.over_us for feature in plan.windowed}
    }
    filters = {
        name: np.asarray(history.rows.column(name).fill_null(False).to_numpy())
        for name in {feature.filter_column for feature in plan.windowed}
        if name is not None
    }
    arrays = [
        ranges[feature.over_us].aggregate(
            feature.function,
            None if feature.column is None else history.rows.column(feature.column),
            None if feature.filter_column is None else filters[feature.filter_column],
        )
        for feature in plan.windowed
    ]
    return pa.table(arrays, names=list(plan.feature_names))
