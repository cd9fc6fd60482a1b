"""OnDemandView: features computed from the request and from other features, when they are asked."""

from dataclasses import dataclass
from typing import Any

from konveyer.core.schema import Column, ColumnType
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.names import check_name, check_unique
from konveyer.feature_store.definitions.python_code import arguments_of, code_of
from konveyer.feature_store.definitions.view import Feature, FeatureType


@dataclass(frozen=True, slots=True)
class RequestField:
    """A value that callers send beside the join keys, and that a label frame has as a column."""

    name: str
    dtype: FeatureType

    def __post_init__(self) -> None:
        check_name("Request field", self.name)
        if self.dtype not in set(ColumnType):
            raise BadDefinition(f"Request field '{self.name}' has type '{self.dtype}'.")

    @property
    def column(self) -> Column:
        return Column(self.name, ColumnType(self.dtype))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandView:
    """`function` of request fields and of features gives new features, in training and serving.

    Its arguments are named like the fields of `request` and the features of `inputs`
    (`"view:feature"`), and are NumPy arrays with one value for each row: numbers and booleans as
    float64 with NaN for null, instants as float64 microseconds, texts as objects with None. It
    returns a dict with an array for each of `features`; NaN and None are null. It must be
    self-contained: what it imports, it imports inside. The definition keeps its text.

    >>> def share(amount, spend_30d):
    ...     return {"share_of_month": amount / spend_30d}
    >>> OnDemandView(
    ...     name="payment", function=share, request=(RequestField("amount", "float64"),),
    ...     inputs=("spend:spend_30d",),
    ...     features=(Feature(name="share_of_month", dtype="float64"),),
    ... ).feature_names
    ('share_of_month',)
    """

    name: str
    function: Any
    features: tuple[Feature, ...]
    request: tuple[RequestField, ...] = ()
    inputs: tuple[str, ...] = ()
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("On-demand view", self.name)
        where = f"On-demand view '{self.name}'"
        object.__setattr__(self, "function", code_of(self.function, where=where))
        if not self.features:
            raise BadDefinition(f"{where} has no features.", hint="name what it computes")
        check_unique(where, self.feature_names)
        for reference in self.inputs:
            if not all(reference.partition(":")):
                raise BadDefinition(
                    f"{where} has the input '{reference}'.", hint="write it as view:feature"
                )
        given = [field.name for field in self.request] + [name for _, name in self.input_features]
        check_unique(where, given)
        if set(arguments_of(self.code)) != set(given):
            raise BadDefinition(
                f"{where}: its function takes {', '.join(arguments_of(self.code))}, but is given "
                f"{', '.join(given)}.",
                hint="name the arguments like the request fields and the input features",
            )

    @property
    def code(self) -> str:
        assert isinstance(self.function, str)  # noqa: S101 - made so on construction
        return self.function

    @property
    def input_features(self) -> tuple[tuple[str, str], ...]:
        """The (view, feature) of each input."""
        pairs = (reference.partition(":") for reference in self.inputs)
        return tuple((view, feature) for view, _, feature in pairs)

    @property
    def each_feature(self) -> tuple[Feature, ...]:
        return self.features

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)
