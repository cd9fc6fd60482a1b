"""Aggregation: one feature computed over a window of events, or one for each value of a column."""

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, get_args

from konveyer.feature_store.definitions.duration import format_duration, parse_duration
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.meaning import Meaning
from konveyer.feature_store.definitions.names import check_column

AggregationFunction = Literal[
    "count", "sum", "mean", "min", "max", "stddev", "first", "last", "count_distinct"
]
UNBOUNDED = "unbounded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation(Meaning):
    """One aggregate of `column` over the window `(t - over, t]` of event time, UTC.

    `over` is a duration such as `7d`, or `unbounded` for everything until `t`. `count` without a
    column counts rows; every other function, and `count` with a column, skips nulls. `where` is a
    SQL condition on the source's columns. An empty window gives 0 for `count` and
    `count_distinct`, and null for the rest; `stddev` is the sample's and needs two values.

    With `by` and `values` there is one feature for each of the values that the column `by` can
    have, named `<name>_<value>`.

    >>> Aggregation(column="amount", function="sum", over="7d").name
    'amount_sum_7d'
    >>> payments = Aggregation(function="count", over="7d", by="kind", values=("Cash", "Card"))
    >>> [one.name for one in payments.expanded]
    ['rows_count_7d_cash', 'rows_count_7d_card']
    """

    function: AggregationFunction
    over: str
    column: str | None = None
    where: str | None = None
    by: str | None = None
    values: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        check_fields("Aggregation", self)
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
        window = self.window
        if not self.name:
            over = UNBOUNDED if window is None else format_duration(window)
            subject = self.column or "rows"
            object.__setattr__(self, "name", f"{subject}_{self.function}_{over}")
        check_column("Feature", self.name)
        self.check_meaning(self.name)
        if (self.by is None) != (not self.values):
            raise BadDefinition(
                f"Aggregation '{self.name}' needs both `by` and `values`, or neither.",
                hint="list the values that the column can have",
            )
        self._check_values()

    def _check_values(self) -> None:
        """Each value must name a feature of its own."""
        named: dict[str, str] = {}
        for value in self.values:
            word = _word(value)
            if not word:
                raise BadDefinition(
                    f"Aggregation '{self.name}': no feature can be named after the value "
                    f"'{value}', which has no letter from a to z and no digit.",
                    hint="leave it out of `values`, and give it an aggregation of its own with a "
                    f"name and where={self._condition(value)!r}",
                )
            if word in named and named[word] != value:
                raise BadDefinition(
                    f"Aggregation '{self.name}': the values '{named[word]}' and '{value}' would "
                    f"both be named '{self.name}_{word}'.",
                    hint="leave one out of `values`, and give it an aggregation of its own with a "
                    f"name and where={self._condition(value)!r}",
                )
            named[word] = value

    @property
    def window(self) -> timedelta | None:
        """None when it is unbounded."""
        if self.over == UNBOUNDED:
            return None
        return parse_duration(self.over, where=f"the window of {self.name or self.function}")

    @property
    def expanded(self) -> "tuple[Aggregation, ...]":
        """Itself, or one for each of `values`."""
        if self.by is None:
            return (self,)
        return tuple(self._of(value) for value in self.values)

    @property
    def formula(self) -> str:
        """How it is computed, in a line.

        >>> Aggregation(column="amount", function="sum", over="7d", where="amount > 0").formula
        'sum(amount) over 7d where amount > 0'
        """
        condition = f" where {self.where}" if self.where else ""
        return f"{self.function}({self.column or '*'}) over {self.over}{condition}"

    def _condition(self, value: str) -> str:
        quoted = value.replace("'", "''")
        column = (self.by or "").replace('"', '""')
        return f"CAST(\"{column}\" AS VARCHAR) = '{quoted}'"

    def _of(self, value: str) -> "Aggregation":
        condition = self._condition(value)
        return replace(
            self,
            name=f"{self.name}_{_word(value)}",
            where=condition if self.where is None else f"({self.where}) AND {condition}",
            description=f"{self.description} ({self.by} {value})".strip(),
            by=None,
            values=(),
        )


def _word(value: str) -> str:
    return re.sub("[^a-z0-9]+", "_", value.lower()).strip("_")
