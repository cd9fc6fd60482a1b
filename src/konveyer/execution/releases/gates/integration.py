"""Integration: callers can stay as they are, features are fresh, and online equals offline.

All is asked of a node of the test environment, by the keys of entities that the model was trained
on; what it used and answered is read from its prediction log.
"""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec

from konveyer.bundle.manifest import GOLDEN, Entities, Golden
from konveyer.bundle.native.inputs import plain
from konveyer.bundle.store import Bundle
from konveyer.core.ids import new_id
from konveyer.execution.releases.compatibility import breaking_changes
from konveyer.execution.releases.environments import PROD, TEST
from konveyer.execution.releases.freshness import Age, ages, named
from konveyer.execution.releases.gates.answers import answering, distance
from konveyer.execution.releases.gates.context import GateContext, is_unknown, predict_path
from konveyer.execution.releases.gates.coverage import Coverage, coverage
from konveyer.execution.releases.gates.sampled import bodies_of, offline_features, sampled_entities
from konveyer.execution.releases.nodes import NodeAccess, no_answer
from konveyer.execution.releases.recorded import as_read
from konveyer.execution.releases.records import current_live
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.feature_store.datamart.lookup import features_of_nobody

_WORST_SHOWN = 5
_LOGGED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One sampled entity: the features that the node used and its answer, or why there is none.

    A node computes nothing on demand for an entity that it does not know.
    """

    keys: tuple[int | str, ...]
    features: tuple[object, ...] | None
    outputs: tuple[object, ...] | None = None
    problem: str = ""
    unknown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Answers of the node beside those of the model itself for the same features.

    `recorded` of them are features that were recorded in development, with what the model said
    there.
    """

    compared: int = 0
    recorded: int = 0
    worst_difference: float = 0.0


def integration_gate(context: GateContext, bundle: Bundle) -> Verdict:
    services, service = context.services, bundle.manifest.service
    entities = sampled_entities(bundle)
    with services.catalog.reading() as session:
        published = ages(session, service.views, services.clock.now_us())
    live = _live(context, bundle)
    with context.on_test(bundle) as node:
        served = _serve(context, bundle, node, entities)
        known = None if live is None else coverage(services, live, node)
    offline = offline_features(services, bundle, entities)
    on_demand = {view.name for view in service.on_demand}
    return judge(
        served,
        offline,
        [column.name for column in service.columns],
        {f.name for f in service.features if f.view in on_demand},
        breaking=[] if live is None else breaking_changes(live.manifest, bundle.manifest),
        known=known,
        published=published,
        predictions=compared_predictions(bundle, served, services.environments, services.secrets),
        tolerance=bundle.manifest.release.tolerance,
    )


def judge(
    served: list[Served],
    offline: list[tuple[object, ...]],
    names: list[str],
    on_demand: AbstractSet[str] = frozenset(),
    *,
    breaking: Sequence[str] = (),
    known: Coverage | None = None,
    published: Sequence[Age] = (),
    predictions: Predictions = Predictions(),
    tolerance: float = 0.0,
) -> Verdict:
    wrong = _differing(served, offline, names, on_demand)
    stale = [age for age in published if age.is_stale]
    lost = () if known is None else known.lost
    problems = [
        *(f"{change}: raise api_version" for change in breaking),
        *([named(stale)] if stale else []),
        *([f"knows {known}"] if lost else []),
        *([] if known is None else known.unanswered[:1]),
    ]
    apart = predictions.worst_difference
    equal = (
        f"{len(served) - len(wrong)} of {len(served)} entities equal, {len(names)} features each"
    )
    same = f"{predictions.compared} answers, worst difference {apart:.1e}"
    return Verdict(
        passed=bool(served) and not wrong and not problems and apart <= tolerance,
        rule="callers can stay as they are, entities that production knows are known, features are "
        "fresh, features served equal features offline, and the same features give the same answer",
        measured="; ".join([*problems, equal, same]),
        limit="no breaking change, no entity lost, no stale view, all equal, difference "
        f"{tolerance:.0e}",
        evidence={
            "entities": len(served),
            "worst": wrong[:_WORST_SHOWN],
            "breaking_changes": list(breaking),
            "lost": lost[:_WORST_SHOWN],
            "published": [asdict(age) for age in published],
            "predictions": asdict(predictions),
        },
    )


def _differing(
    served: Sequence[Served],
    offline: Sequence[tuple[object, ...]],
    names: Sequence[str],
    on_demand: AbstractSet[str],
) -> list[dict[str, Any]]:
    """Entities without an answer, then those with features that differ, most of them first."""
    silent: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    for one, expected in zip(served, offline, strict=True):
        if one.features is None:
            silent.append({"keys": one.keys, "problem": one.problem})
            continue
        different = {
            name: {"online": got, "offline": wanted}
            for name, got, wanted in zip(names, one.features, expected, strict=True)
            if got != wanted and not (one.unknown and name in on_demand)
        }
        if different:
            wrong.append({"keys": one.keys, "features": different})
    return [*silent, *sorted(wrong, key=lambda row: -len(row["features"]))]


def _live(context: GateContext, bundle: Bundle) -> Bundle | None:
    """What production serves at the same URL, when it is another bundle."""
    services, manifest = context.services, bundle.manifest
    with services.catalog.reading() as session:
        live = current_live(session, PROD, manifest.application, manifest.api_version)
    if live is None or live.digest == bundle.digest:
        return None
    return services.bundles.open(live.digest)


def compared_predictions(
    bundle: Bundle,
    served: Sequence[Served],
    environments: Path,
    secrets: frozenset[str] = frozenset(),
) -> Predictions:
    """The node's answers against the model's own: recorded in development, or given here."""
    cases = msgspec.json.decode((bundle.path / GOLDEN).read_bytes(), type=Golden).cases
    recorded = {repr(case.features): case.outputs for case in cases if not case.error}
    rows = [one for one in served if one.outputs is not None and one.features is not None]
    columns = bundle.manifest.service.columns
    features = [as_read(one.features or (), columns) for one in rows]
    with answering(bundle, environments, secrets) as answer:
        own = answer(features)
    worst, found = 0.0, 0
    for one, used, computed in zip(rows, features, own, strict=True):
        known = recorded.get(repr([plain(value) for value in used]))
        found += known is not None
        worst = max(worst, distance(one.outputs or (), computed if known is None else known))
    return Predictions(compared=len(rows), recorded=found, worst_difference=worst)


def _serve(
    context: GateContext, bundle: Bundle, node: NodeAccess, entities: Entities
) -> list[Served]:
    """Ask for each entity; the features used are read from the prediction log.

    An entity that the node does not know must have nothing offline either.
    """
    keys = entities.keys
    path, batch = predict_path(bundle.manifest), new_id("gate")
    problems: dict[tuple[int | str, ...], str] = {}
    unknown: set[tuple[int | str, ...]] = set()
    with node.client() as client:
        for place, (key, body) in enumerate(zip(keys, bodies_of(bundle, entities), strict=True)):
            request_id = f"{batch}-{place}"
            try:
                answer = client.post(path, json=body, headers={"x-request-id": request_id})
            except httpx.HTTPError as error:
                problems[key] = no_answer(error)
                continue
            if is_unknown(answer):
                unknown.add(key)
            elif not answer.is_success:
                problems[key] = answer.text
    logged = _logged(context, batch, {*keys} - problems.keys() - unknown)
    features = {key: used for key, (used, _) in logged.items()}
    features |= dict.fromkeys(unknown, features_of_nobody(bundle.manifest.service))
    return [
        Served(
            keys=key,
            features=features.get(key),
            outputs=logged[key][1] if key in logged else None,
            problem=problems.get(key, "not in the prediction log"),
            unknown=key in unknown,
        )
        for key in keys
    ]


def _logged(
    context: GateContext, batch: str, answered: AbstractSet[tuple[int | str, ...]]
) -> dict[tuple[int | str, ...], tuple[tuple[object, ...], tuple[object, ...]]]:
    """Features and outputs by the keys of the entity, of those that were `answered`."""
    deadline = time.monotonic() + _LOGGED_WITHIN_S
    while True:
        found = {
            tuple(row["keys"]): (tuple(row["features"]), tuple(row["outputs"]))
            for row in read_predictions(context.services.storage, TEST, request_prefix=batch)
            if row["error"] is None and tuple(row["keys"]) in answered
        }
        if len(found) == len(answered) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
