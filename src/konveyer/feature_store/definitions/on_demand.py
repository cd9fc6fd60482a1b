"""OnDemandView: features computed from the request and from other features, when they are asked."""

from dataclasses import dataclass
from typing import Any

from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.names import check_name, check_unique
from konveyer.feature_store.definitions.python_code import arguments_of, code_of
from konveyer.feature_store.definitions.types import scalar_type
from konveyer.feature_store.definitions.view import Feature


@dataclass(frozen=True, slots=True)
class RequestField:
    """A value that callers send beside the join keys, and that a label frame has as a column.

    `dtype` is `int64`, `float64`, `bool`, `string` or `timestamp`.
    """

    name: str
    dtype: str

    def __post_init__(self) -> None:
        check_fields("Request field", self)
        check_name("Request field", self.name)
        _ = self.column

    @property
    def column(self) -> ScalarColumn:
        return ScalarColumn(
            self.name, scalar_type(self.dtype, where=f"Request field '{self.name}'")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemandView:
    """`function` of request fields and of features gives new features, in training and serving.

    Its arguments are named like the fields of `request` and the features of `inputs`
    (`"view:feature"`), and are NumPy arrays with one value for each row: numbers (decimals too) and
    booleans as float64 with NaN for null, instants as float64 microseconds, texts and lists as
    objects with None. It returns a dict with an array for each of `features`, none of which is a
    decimal or a list; NaN and None are null. It must be self-contained: what it imports, it imports
    inside. The definition keeps its text.

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
        check_fields("On-demand view", self)
        check_name("On-demand view", self.name)
        where = f"On-demand view '{self.name}'"
        object.__setattr__(self, "function", code_of(self.function, where=where))
        if not self.features:
            raise BadDefinition(f"{where} has no features.", hint="name what it computes")
        check_unique(where, self.feature_names)
        _ = self.outputs
        for feature in self.features:
            if feature.is_limited:
                raise BadDefinition(
                    f"{where}, feature '{feature.name}': limits are checked by ETL, which does not "
                    "compute it.",
                    hint="leave them out, and keep to them in the function",
                )
        for reference in self.inputs:
            if not all(reference.partition(":")):
                raise BadDefinition(
                    f"{where} has the input '{reference}'.", hint="write it as view:feature"
                )
        if not self.request and not self.inputs:
            raise BadDefinition(
                f"{where} computes from nothing.", hint="name request fields, or input features"
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
    def outputs(self) -> tuple[ScalarColumn, ...]:
        where = f"On-demand view '{self.name}', feature"
        return tuple(
            ScalarColumn(one.name, scalar_type(one.dtype, where=f"{where} '{one.name}'"))
            for one in self.features
        )

    @property
    def each_feature(self) -> tuple[Feature, ...]:
        return self.features

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)
