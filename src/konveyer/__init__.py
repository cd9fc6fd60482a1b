"""Konveyer: one conveyor from raw events to a prediction served in production.

The names below are the vocabulary of a definitions folder, and `FeatureStore` for notebooks. They
load on first use, so `import konveyer` costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from konveyer.feature_store.definitions.aggregation import Aggregation
    from konveyer.feature_store.definitions.derived import Derived
    from konveyer.feature_store.definitions.entity import Entity, JoinKey
    from konveyer.feature_store.definitions.on_demand import OnDemandView, RequestField
    from konveyer.feature_store.definitions.pushed import PushedColumn
    from konveyer.feature_store.definitions.service import FeatureService
    from konveyer.feature_store.definitions.source import Source
    from konveyer.feature_store.definitions.view import Feature, FeatureView
    from konveyer.sdk import FeatureStore

__version__ = "0.1.0"

_DEFINITIONS = "konveyer.feature_store.definitions"
_HOME = {
    "Aggregation": f"{_DEFINITIONS}.aggregation",
    "Derived": f"{_DEFINITIONS}.derived",
    "Entity": f"{_DEFINITIONS}.entity",
    "Feature": f"{_DEFINITIONS}.view",
    "FeatureService": f"{_DEFINITIONS}.service",
    "FeatureStore": "konveyer.sdk",
    "FeatureView": f"{_DEFINITIONS}.view",
    "JoinKey": f"{_DEFINITIONS}.entity",
    "OnDemandView": f"{_DEFINITIONS}.on_demand",
    "PushedColumn": f"{_DEFINITIONS}.pushed",
    "RequestField": f"{_DEFINITIONS}.on_demand",
    "Source": f"{_DEFINITIONS}.source",
}

__all__ = [
    "Aggregation",
    "Derived",
    "Entity",
    "Feature",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "JoinKey",
    "OnDemandView",
    "PushedColumn",
    "RequestField",
    "Source",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'konveyer' has no attribute '{name}'")
    return getattr(import_module(home), name)
