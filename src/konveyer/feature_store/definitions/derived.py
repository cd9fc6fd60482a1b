"""Derived: a feature made of two others of the same view."""

from dataclasses import dataclass
from typing import Literal

from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.meaning import Meaning
from konveyer.feature_store.definitions.names import check_column

_SIGNS = {"ratio": "/", "difference": "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Meaning):
    """The ratio `left / right` or the difference `left - right` of two aggregations of the view.

    Null where either is null; a ratio is also null where `right` is 0.

    >>> Derived(name="share", operation="ratio", left="spend_7d", right="spend_90d").formula
    'spend_7d / spend_90d'
    """

    name: str
    operation: Literal["ratio", "difference"]
    left: str
    right: str

    def __post_init__(self) -> None:
        check_fields("Feature", self)
        check_column("Feature", self.name)
        self.check_meaning(self.name)
        if self.operation not in _SIGNS:
            raise BadDefinition(
                f"Feature '{self.name}' has operation '{self.operation}'.",
                hint=f"use {' or '.join(_SIGNS)}",
            )

    @property
    def formula(self) -> str:
        return f"{self.left} {_SIGNS[self.operation]} {self.right}"
