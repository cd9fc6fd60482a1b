"""Some of the entities that a model was trained on, how to ask for them, and what they have."""

from typing import Any

import msgspec
import numpy as np

from konveyer.bundle.manifest import ENTITIES, Entities
from konveyer.bundle.store import Bundle
from konveyer.core.clock import format_us
from konveyer.core.schema import ColumnType
from konveyer.execution.releases.gates.context import GateServices
from konveyer.feature_store.datamart.published import published_features

SAMPLED = 50


def sampled_entities(bundle: Bundle) -> Entities:
    """Some of the entities that the model was trained on, spread evenly."""
    kept = msgspec.json.decode((bundle.path / ENTITIES).read_bytes(), type=Entities)
    places = np.linspace(0, len(kept.keys) - 1, min(SAMPLED, len(kept.keys))).astype(int)
    return Entities(
        keys=tuple(kept.keys[place] for place in places),
        requests=tuple(kept.requests[place] for place in places),
    )


def bodies_of(bundle: Bundle, entities: Entities) -> list[dict[str, Any]]:
    """The request for each entity."""
    service = bundle.manifest.service
    keys = [key.name for key in service.keys]
    return [
        dict(zip(keys, key, strict=True))
        | {
            field.name: format_us(int(value))
            if field.dtype is ColumnType.TIMESTAMP and value is not None
            else value
            for field, value in zip(service.request, request, strict=True)
        }
        for key, request in zip(entities.keys, entities.requests, strict=True)
    ]


def offline_features(
    services: GateServices, bundle: Bundle, entities: Entities
) -> list[tuple[object, ...]]:
    """What each entity has offline now, of the features of the bundle's service, in their order."""
    return published_features(
        services.catalog,
        services.engine,
        services.offline,
        bundle.manifest.service,
        entities.keys,
        entities.requests,
    )
