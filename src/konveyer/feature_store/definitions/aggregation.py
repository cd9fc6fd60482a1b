"""Aggregation: one feature computed over a window of events."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from konveyer.feature_store.definitions.duration import format_duration, parse_duration
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.names import check_name

AggregationFunction = Literal[
    "count", "sum", "mean", "min", "max", "stddev", "first", "last", "count_distinct"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """One aggregate of `column` over the window `(t - over, t]` of event time, UTC.

    `count` without a column counts rows; every other function, and `count` with a column, skips
    nulls. `where` is a SQL condition on the source's columns. An empty window gives 0 for `count`
    and null for the rest. `minimum` and `maximum` bound what ETL accepts.

    >>> Aggregation(column="amount", function="sum", over="7d").name
    'amount_sum_7d'
    >>> Aggregation(function="count", over="30d", name="baskets_30d").name
    'baskets_30d'
    """

    function: AggregationFunction
    over: str
    column: str | None = None
    where: str | None = None
    name: str = ""
    description: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if self.function not in get_args(AggregationFunction):
            raise BadDefinition(
                f"Aggregation function '{self.function}' is not known.",
                hint=f"use one of {', '.join(get_args(AggregationFunction))}",
            )
        if self.column is None and self.function != "count":
            raise BadDefinition(
                f"Aggregation '{self.function}' over {self.over} names no column.",
                hint="only count can go without a column",
            )
        over = format_duration(self.window)
        if not self.name:
            subject = self.column or "rows"
            object.__setattr__(self, "name", f"{subject}_{self.function}_{over}")
        check_name("Feature", self.name)

    @property
    def formula(self) -> str:
        """How it is computed, in a line.

        >>> Aggregation(column="amount", function="sum", over="7d", where="amount > 0").formula
        'sum(amount) over 7d where amount > 0'
        """
        condition = f" where {self.where}" if self.where else ""
        return f"{self.function}({self.column or '*'}) over {self.over}{condition}"

    @property
    def window(self) -> timedelta:
        return parse_duration(self.over, where=f"the window of {self.name or self.function}")
