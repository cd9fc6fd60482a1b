"""Integration: the test environment answers, and what it read online equals what is offline."""

import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np

from konveyer.bundle.manifest import ENTITIES, Entities
from konveyer.bundle.store import Bundle
from konveyer.core.clock import format_us
from konveyer.core.ids import new_id
from konveyer.core.schema import ColumnType
from konveyer.execution.releases.gates.context import GateContext, predict_path
from konveyer.execution.releases.live import TEST
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.errors import EntityNotFound
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.feature_store.datamart.lookup import features_of_nobody
from konveyer.feature_store.datamart.published import published_features

SAMPLED = 50
_WORST_SHOWN = 5
_LOGGED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One sampled entity: the features that the node used, or why it gave no answer.

    A node computes nothing on demand for an entity that it does not know.
    """

    keys: tuple[int | str, ...]
    features: tuple[object, ...] | None
    problem: str = ""
    unknown: bool = False


def integration_gate(context: GateContext, bundle: Bundle) -> Verdict:
    entities = sampled_entities(bundle)
    with context.on_test(bundle) as url:
        served = _serve(context, bundle, url, entities)
    services, service = context.services, bundle.manifest.service
    offline = published_features(
        services.catalog,
        services.engine,
        services.offline,
        service,
        entities.keys,
        entities.requests,
    )
    names = [column.name for column in service.columns]
    on_demand = {view.name for view in service.on_demand}
    return judge(served, offline, names, {f.name for f in service.features if f.view in on_demand})


def judge(
    served: list[Served],
    offline: list[tuple[object, ...]],
    names: list[str],
    on_demand: AbstractSet[str] = frozenset(),
) -> Verdict:
    wrong: list[dict[str, Any]] = []
    for one, expected in zip(served, offline, strict=True):
        if one.features is None:
            wrong.append({"keys": one.keys, "problem": one.problem})
            continue
        different = {
            name: {"online": got, "offline": wanted}
            for name, got, wanted in zip(names, one.features, expected, strict=True)
            if got != wanted and not (one.unknown and name in on_demand)
        }
        if different:
            wrong.append({"keys": one.keys, "features": different})
    return Verdict(
        passed=bool(served) and not wrong,
        rule="features served equal features offline",
        measured=f"{len(served) - len(wrong)} of {len(served)} entities equal, "
        f"{len(names)} features each",
        limit="all equal",
        evidence={"entities": len(served), "worst": wrong[:_WORST_SHOWN]},
    )


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


def _serve(context: GateContext, bundle: Bundle, url: str, entities: Entities) -> list[Served]:
    """Ask for each entity; the features used are read from the prediction log.

    An entity that the node does not know must have nothing offline either.
    """
    keys = entities.keys
    path, batch = predict_path(bundle.manifest), new_id("gate")
    problems: dict[tuple[int | str, ...], str] = {}
    unknown: set[tuple[int | str, ...]] = set()
    with httpx.Client(base_url=url, timeout=10.0) as client:
        for place, (key, body) in enumerate(zip(keys, bodies_of(bundle, entities), strict=True)):
            request_id = f"{batch}-{place}"
            answer = client.post(path, json=body, headers={"x-request-id": request_id})
            if _is_unknown(answer):
                unknown.add(key)
            elif not answer.is_success:
                problems[key] = answer.text
    logged = _logged(context, batch, len(keys) - len(problems) - len(unknown))
    logged |= dict.fromkeys(unknown, features_of_nobody(bundle.manifest.service))
    return [
        Served(
            keys=key,
            features=logged.get(key),
            problem=problems.get(key, "not in the prediction log"),
            unknown=key in unknown,
        )
        for key in keys
    ]


def _is_unknown(answer: httpx.Response) -> bool:
    return answer.status_code == EntityNotFound.status and (
        answer.json()["error"]["code"] == EntityNotFound.code
    )


def _logged(
    context: GateContext, batch: str, expected: int
) -> dict[tuple[int | str, ...], tuple[object, ...]]:
    deadline = time.monotonic() + _LOGGED_WITHIN_S
    while True:
        found = {
            tuple(row["keys"]): tuple(row["features"])
            for row in read_predictions(context.services.storage, TEST, request_prefix=batch)
            if row["error"] is None
        }
        if len(found) >= expected or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
