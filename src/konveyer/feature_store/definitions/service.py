"""FeatureService: the list of features that a model uses."""

from dataclasses import dataclass

from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.names import check_name, check_unique


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureService:
    """The features a model uses, in order: `"view"` for all of a view, or `"view:feature"`.

    >>> FeatureService(name="scoring", features=("card_spend:amount_sum_7d",)).features
    ('card_spend:amount_sum_7d',)
    """

    name: str
    features: tuple[str, ...]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("Feature service", self.name)
        if not self.features:
            raise BadDefinition(
                f"Feature service '{self.name}' lists no features.",
                hint="name a view in `features`",
            )
        check_unique(f"Feature service '{self.name}'", self.features)
