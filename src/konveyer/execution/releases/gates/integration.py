"""Integration: the test environment answers, and what it read online equals what is offline."""

import time
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import numpy as np

from konveyer.bundle.manifest import ENTITIES, Entities
from konveyer.bundle.store import Bundle
from konveyer.core.ids import new_id
from konveyer.execution.releases.gates.context import TEST, GateContext, predict_path
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.errors import EntityNotFound
from konveyer.execution.serving.prediction_log import log_folder
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.feature_store.datamart.lookup import features_of_nobody
from konveyer.feature_store.datamart.published import published_features

SAMPLED = 50
_WORST_SHOWN = 5
_LOGGED_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One sampled entity: the features that the node used, or why it gave no answer."""

    keys: tuple[int | str, ...]
    features: tuple[object, ...] | None
    problem: str = ""


def integration_gate(context: GateContext, bundle: Bundle) -> Verdict:
    keys = sampled_keys(bundle)
    with context.on_test(bundle) as url:
        served = _serve(context, bundle, url, keys)
    services = context.services
    offline = published_features(
        services.catalog, services.engine, services.offline, bundle.manifest.service, keys
    )
    return judge(served, offline, [column.name for column in bundle.manifest.service.columns])


def judge(served: list[Served], offline: list[tuple[object, ...]], names: list[str]) -> Verdict:
    wrong: list[dict[str, Any]] = []
    for one, expected in zip(served, offline, strict=True):
        if one.features is None:
            wrong.append({"keys": one.keys, "problem": one.problem})
            continue
        different = {
            name: {"online": got, "offline": wanted}
            for name, got, wanted in zip(names, one.features, expected, strict=True)
            if got != wanted
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


def sampled_keys(bundle: Bundle) -> list[tuple[int | str, ...]]:
    """Some of the entities that the model was trained on, spread evenly."""
    keys = msgspec.json.decode((bundle.path / ENTITIES).read_bytes(), type=Entities).keys
    places = np.linspace(0, len(keys) - 1, min(SAMPLED, len(keys))).astype(int)
    return [keys[place] for place in places]


def _serve(
    context: GateContext, bundle: Bundle, url: str, keys: list[tuple[int | str, ...]]
) -> list[Served]:
    """Ask for each entity by its key alone; the features used are read from the prediction log.

    An entity that the node does not know must have nothing offline either.
    """
    names = [key.name for key in bundle.manifest.service.keys]
    path, batch = predict_path(bundle.manifest), new_id("gate")
    problems: dict[tuple[int | str, ...], str] = {}
    unknown: set[tuple[int | str, ...]] = set()
    with httpx.Client(base_url=url, timeout=10.0) as client:
        for place, key in enumerate(keys):
            request_id = f"{batch}-{place}"
            body = dict(zip(names, key, strict=True))
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
    folder = log_folder(context.services.state, TEST)
    deadline = time.monotonic() + _LOGGED_WITHIN_S
    while True:
        found = {
            tuple(row["keys"]): tuple(row["features"])
            for row in read_predictions(folder, request_prefix=batch)
        }
        if len(found) >= expected or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
