"""FeatureView: features of one entity that are computed together."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from konveyer.core.errors import did_you_mean
from konveyer.core.schema import Column, ColumnType, ListType, parse_dtype
from konveyer.feature_store.definitions.aggregation import Aggregation
from konveyer.feature_store.definitions.derived import Derived
from konveyer.feature_store.definitions.duration import parse_duration
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.meaning import Meaning
from konveyer.feature_store.definitions.names import check_column, check_name, check_unique
from konveyer.feature_store.definitions.python_code import code_of
from konveyer.feature_store.definitions.types import value_type

# What a view of each kind is given.
_KINDS = (
    {"source", "aggregations"},
    {"sql", "features"},
    {"source", "function", "features"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature(Meaning):
    """A column of a SQL view, with what it means and what ETL accepts in it.

    `dtype` is `int64`, `float64`, `bool`, `string`, `timestamp`, `decimal(p,s)`, or `list<...>` of
    one of the first four.

    >>> Feature(name="age", dtype="int64", minimum=0, maximum=120).column.dtype.value
    'int64'
    """

    name: str
    dtype: str
    nullable: bool = True
    one_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields("Feature", self)
        check_column("Feature", self.name)
        self.check_meaning(self.name)
        where = f"Feature '{self.name}'"
        found = value_type(self.dtype, where=where)
        object.__setattr__(self, "dtype", str(found))
        if isinstance(found, ListType) and (self.minimum, self.maximum) != (None, None):
            raise BadDefinition(
                f"{where} is {found} and has a minimum or a maximum.",
                hint="check its items in the SQL of the view",
            )
        if self.one_of and not isinstance(found, ColumnType):
            raise BadDefinition(
                f"{where} is {found} and lists values.", hint="only string has `one_of`"
            )

    @property
    def column(self) -> Column:
        return Column(self.name, parse_dtype(self.dtype))

    @property
    def is_limited(self) -> bool:
        """Whether some of the values of its type are not acceptable."""
        limits = (self.minimum, self.maximum) != (None, None) or bool(self.one_of)
        return limits or not self.nullable

    @property
    def formula(self) -> str:
        """The SQL of its view says how it is computed."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureView:
    """Features of one entity, of one of three kinds.

    - `aggregations` over a `source`, and `derived` ratios and differences of them;
    - `sql`: one SELECT of the entity's join keys, `event_time` and every one of `features`, by
      these names; `created_time` is used when it selects that too;
    - `function` over a `source`, for what SQL cannot say: it is given a Polars frame with all rows
      of some entities, in the order of the join keys and `event_time` (by these names, and
      `created_time` when the source has it), and returns a frame, or an Arrow table, with the same
      and every one of `features`. It must be self-contained (what it imports, it imports inside),
      and compute a row from those before it alone: it is given later ones too.

    A row of the latter two is visible for `ttl` after its event time (for ever when None).
    `refresh` is how often ETL publishes the view online.

    With `accuracy="snapshot"` a training set sees what serving would have seen, the values of the
    last whole `refresh` before the label; with `"exact"` it sees the values at the label's time.

    >>> FeatureView(
    ...     name="card_spend", entity="client", source="card_events",
    ...     aggregations=(Aggregation(column="amount", function="sum", over="7d"),),
    ... ).feature_names
    ('amount_sum_7d',)
    """

    name: str
    entity: str
    source: str | None = None
    aggregations: tuple[Aggregation, ...] = ()
    derived: tuple[Derived, ...] = ()
    sql: str | None = None
    function: Any = None
    features: tuple[Feature, ...] = ()
    ttl: str | None = None
    refresh: str = "1d"
    accuracy: Literal["snapshot", "exact"] = "snapshot"
    as_known: bool = True
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields("Feature view", self)
        check_name("Feature view", self.name)
        where = f"Feature view '{self.name}'"
        given = {
            name
            for name in ("source", "aggregations", "derived", "sql", "function", "features")
            if getattr(self, name)
        }
        if given - {"derived"} not in _KINDS or (self.derived and not self.aggregations):
            raise BadDefinition(
                f"{where} must have either a source with aggregations, or SQL with features, or "
                "a source with a function and features.",
                hint="give one of the three and leave the rest out",
            )
        if self.function is not None:
            object.__setattr__(self, "function", code_of(self.function, where=where))
        if self.aggregations and self.ttl is not None:
            raise BadDefinition(
                f"{where} has aggregations and a ttl.",
                hint="leave the ttl out: a window has a length of its own, `over`",
            )
        if self.accuracy not in ("snapshot", "exact"):
            raise BadDefinition(
                f"{where} has accuracy '{self.accuracy}'.", hint="use snapshot or exact"
            )
        check_unique(where, self.feature_names)
        self._check_derived(where)
        _ = self.refresh_every, self.visible_for

    def _check_derived(self, where: str) -> None:
        known = {aggregation.name for aggregation in self.each_aggregation}
        for derived in self.derived:
            for name in (derived.left, derived.right):
                if name not in known:
                    raise BadDefinition(
                        f"{where}, feature '{derived.name}' is made of '{name}', which is not an "
                        "aggregation of the view.",
                        hint=did_you_mean(name, known, otherwise="name two of its aggregations"),
                    )

    @property
    def is_windowed(self) -> bool:
        return bool(self.aggregations)

    @property
    def each_aggregation(self) -> tuple[Aggregation, ...]:
        """Those with `by` as one for each value."""
        return tuple(one for aggregation in self.aggregations for one in aggregation.expanded)

    @property
    def each_feature(self) -> tuple[Feature | Aggregation | Derived, ...]:
        """Every feature, in the order of their columns."""
        return (*self.features, *self.each_aggregation, *self.derived)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.each_feature)

    @property
    def refresh_every(self) -> timedelta:
        return parse_duration(self.refresh, where=f"the refresh of feature view '{self.name}'")

    @property
    def visible_for(self) -> timedelta | None:
        if self.ttl is None:
            return None
        return parse_duration(self.ttl, where=f"the ttl of feature view '{self.name}'")
