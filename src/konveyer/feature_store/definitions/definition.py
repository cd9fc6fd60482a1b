"""A definition is one of five kinds; its version is the digest of what it computes."""

from collections.abc import Mapping
from enum import StrEnum
from typing import assert_never

import msgspec

from konveyer.core.digest import digest_value, short
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.service import FeatureService
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.definitions.view import FeatureView

Definition = Entity | Source | FeatureView | OnDemandView | FeatureService


# Of a definition and of its features.
DOCUMENTATION = frozenset({"description", "unit", "owner", "tags", "sensitivity"})


class Kind(StrEnum):
    """In the order in which one may refer to another."""

    ENTITY = "entity"
    SOURCE = "source"
    VIEW = "view"
    ON_DEMAND = "on-demand view"
    SERVICE = "service"


def kind_of(definition: Definition) -> Kind:
    match definition:
        case Entity():
            return Kind.ENTITY
        case Source():
            return Kind.SOURCE
        case FeatureView():
            return Kind.VIEW
        case OnDemandView():
            return Kind.ON_DEMAND
        case FeatureService():
            return Kind.SERVICE
        case _:
            assert_never(definition)


_TYPES: dict[Kind, type[Definition]] = {
    Kind.ENTITY: Entity,
    Kind.SOURCE: Source,
    Kind.VIEW: FeatureView,
    Kind.ON_DEMAND: OnDemandView,
    Kind.SERVICE: FeatureService,
}


def to_spec(definition: Definition) -> dict[str, object]:
    """Plain JSON values, the form kept in the catalog: equal definitions give equal ones."""
    spec: dict[str, object] = msgspec.to_builtins(definition)
    return spec


def from_spec(kind: Kind, spec: dict[str, object]) -> Definition:
    """The inverse of `to_spec`.

    >>> e = from_spec(Kind.SERVICE, {"name": "scoring", "features": ["card_spend"]})
    >>> from_spec(kind_of(e), to_spec(e)) == e
    True
    """
    definition: Definition = msgspec.convert(spec, _TYPES[kind])
    return definition


def version_of(definition: Definition, reads: Mapping[str, str] | None = None) -> str:
    """Twelve hex digits of the digest of what is computed and of the versions of what it `reads`.

    What only people read (`DOCUMENTATION`) is no part of it. `reads` maps `kind:name` to a version,
    so that a change of a source makes a new version of every view over it, and that of every
    service with the view; `types` stands for column types.
    """
    return short(digest_value([_undocumented(to_spec(definition)), reads or {}]))


def _undocumented(spec: Mapping[str, object]) -> dict[str, object]:
    """A definition's or a feature's spec without its documentation."""
    return {
        name: [_undocumented(one) if isinstance(one, dict) else one for one in value]
        if isinstance(value, list | tuple)
        else value
        for name, value in spec.items()
        if name not in DOCUMENTATION
    }
