"""FeatureService: the list of features that a model uses."""

import re
from dataclasses import dataclass

from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.names import check_name, check_unique

_REFERENCE = re.compile(r"(\w+)(?::(\w+)(?: as (\w+))?)?")


@dataclass(frozen=True, slots=True)
class Reference:
    """All features of `view`, or one of them, perhaps under another `name`."""

    view: str
    feature: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureService:
    """The features a model uses, in order.

    `"view"` takes all of a view, `"view:feature"` one, `"view:feature as name"` one renamed.

    >>> FeatureService(name="scoring", features=("card_spend:amount_sum_7d as spend",)).references
    (Reference(view='card_spend', feature='amount_sum_7d', name='spend'),)
    """

    name: str
    features: tuple[str, ...]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields("Feature service", self)
        check_name("Feature service", self.name)
        if not self.features:
            raise BadDefinition(
                f"Feature service '{self.name}' lists no features.",
                hint="name a view in `features`",
            )
        check_unique(f"Feature service '{self.name}'", self.features)
        for reference in self.references:
            if reference.name is not None:
                check_name("Feature", reference.name)

    @property
    def references(self) -> tuple[Reference, ...]:
        return tuple(self._parsed(text) for text in self.features)

    def _parsed(self, text: str) -> Reference:
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise BadDefinition(
                f"Feature service '{self.name}' lists '{text}', which is no feature.",
                hint="write view, view:feature or view:feature as name",
            )
        return Reference(*match.groups())
