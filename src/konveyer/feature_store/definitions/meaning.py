"""What a feature means to people, and which of its values ETL accepts."""

from dataclasses import dataclass
from typing import Literal, get_args

from konveyer.feature_store.definitions.errors import BadDefinition

Sensitivity = Literal["public", "internal", "confidential", "personal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What every kind of feature can say of itself.

    An `owner` and `tags` that are left out are those of the view. `minimum` and `maximum` bound
    what ETL accepts; null passes.
    """

    description: str = ""
    unit: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    sensitivity: Sensitivity = "internal"
    minimum: float | None = None
    maximum: float | None = None

    def check_meaning(self, name: str) -> None:
        if self.sensitivity not in get_args(Sensitivity):
            raise BadDefinition(
                f"Feature '{name}' has sensitivity '{self.sensitivity}'.",
                hint=f"use one of {', '.join(get_args(Sensitivity))}",
            )
        if any(limit != limit for limit in (self.minimum, self.maximum)):
            raise BadDefinition(
                f"Feature '{name}' has a limit that is no number.", hint="leave it out"
            )
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:  # type: ignore[operator]
            raise BadDefinition(
                f"Feature '{name}' has minimum {self.minimum} above maximum {self.maximum}.",
                hint="swap them",
            )
