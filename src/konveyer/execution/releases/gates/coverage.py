"""Whether a release knows the entities that production answers today."""

from dataclasses import dataclass

import httpx

from konveyer.bundle.store import Bundle
from konveyer.execution.releases.gates.context import GateServices, is_unknown, predict_path
from konveyer.execution.releases.gates.sampled import bodies_of, offline_features, sampled_entities
from konveyer.execution.releases.nodes import NodeAccess, no_answer
from konveyer.feature_store.datamart.lookup import features_of_nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How many entities were asked about, all known to production, and the keys of `lost` ones;
    and what is wrong with each of those that the node did not answer for.
    """

    asked: int
    lost: tuple[tuple[int | str, ...], ...]
    unanswered: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = self.asked - len(self.lost) - len(self.unanswered)
        return f"{known} of {self.asked} entities that production knows"


def coverage(services: GateServices, live: Bundle, node: NodeAccess) -> Coverage:
    """Asks `node`, which serves the candidate, for entities that the live model was trained on.

    Production knows those that have any feature offline now.
    """
    service = live.manifest.service
    entities = sampled_entities(live)
    offline = offline_features(services, live, entities)
    on_demand = {view.name for view in service.on_demand}
    stored = [n for n, feature in enumerate(service.features) if feature.view not in on_demand]
    nothing = features_of_nobody(service)
    asked = [
        (key, body)
        for key, body, row in zip(entities.keys, bodies_of(live, entities), offline, strict=True)
        if any(row[n] != nothing[n] for n in stored)
    ]
    path = predict_path(live.manifest)
    lost: list[tuple[int | str, ...]] = []
    unanswered: list[str] = []
    with node.client() as client:
        for key, body in asked:
            try:
                if is_unknown(client.post(path, json=body)):
                    lost.append(key)
            except httpx.HTTPError as error:
                unanswered.append(f"{key}: {no_answer(error)}")
    return Coverage(asked=len(asked), lost=tuple(lost), unanswered=tuple(unanswered))
