"""What stages that watch production share: standing beside the live version, and telling."""

from typing import Any

from konveyer.core.clock import now_us
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.live import publish_desired
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.nodes import Patience
from konveyer.execution.releases.observed import Url
from konveyer.execution.releases.records import current_live, release_row, stage_row
from konveyer.execution.releases.sides import Side, put_side
from konveyer.execution.releases.verdict import Verdict, as_json
from konveyer.execution.serving.presence import nodes_of

# A stage looks so often into the log: soon after it began, and more seldom in one of hours.
LOOK_EVERY_S = 0.5
LONGEST_PAUSE_S = 15.0
_LOOKING_SHARE = 5.0


def nothing_live(context: GateContext, url: Url) -> Verdict | None:
    """That there is nothing to compare with, while production serves no version at the URL."""
    with context.services.catalog.reading() as session:
        live = current_live(session, PROD, url.application, url.api_version)
    if live is not None:
        return None
    return needless("production serves no version of it yet, there is nothing to compare with")


def needless(why: str) -> Verdict:
    return Verdict(passed=True, rule="", measured=why, limit="", needless=True)


def stand_beside(context: GateContext, side: Side, share: float) -> None:
    """Give the release its share of production's requests; harmless when it has it."""
    services = context.services
    with services.catalog.transaction() as session:
        row = release_row(session, context.release)
        if row.state == side:  # a stage that shows a release on a side is named like the side
            put_side(session, PROD, row, side, per_mille=round(share * 1000))
    publish_desired(services.catalog, services.storage, PROD)


def is_still_in(context: GateContext, stage: State) -> bool:
    """False once a person has moved the release on, or taken it back."""
    with context.services.catalog.reading() as session:
        return release_row(session, context.release).state == stage


def kept_evidence(context: GateContext, stage: State) -> tuple[int, dict[str, Any]]:
    """When the stage began, and what it told so far: it goes on from there after a kill."""
    with context.services.catalog.reading() as session:
        row = stage_row(session, context.release, stage)
        return row.started_us, dict(row.evidence)


def tell(context: GateContext, stage: State, measured: str, evidence: dict[str, Any]) -> None:
    """Keep what is known so far, for those who watch and for a process that goes on."""
    with context.services.catalog.transaction() as session:
        if release_row(session, context.release).state == stage:
            row = stage_row(session, context.release, stage)
            row.measured, row.evidence = measured, as_json(evidence)


def pause_s(since_us: int, looked_s: float) -> float:
    """How long to wait before the next look: a fiftieth of the time so far, within bounds.

    And long enough that looking itself takes little of the time.
    """
    so_far_s = (now_us() - since_us) / 1e6
    usual_s = min(LONGEST_PAUSE_S, max(LOOK_EVERY_S, so_far_s / 50))
    return max(usual_s, _LOOKING_SHARE * looked_s)


class Refusals:
    """Why nodes of production do not take up a bundle, for those who look again and again.

    A node gets a while, and longer while it is preparing: the environment of an isolated model has
    to be built, and its process has to start.
    """

    def __init__(self, context: GateContext, digest: str) -> None:
        self._storage, self._digest = context.services.storage, digest
        self._patience: dict[str, Patience] = {}

    def look(self) -> list[str]:
        """Of the nodes that have refused it for so long."""
        refused = {
            node.url: one
            for node in nodes_of(self._storage, PROD)
            for one in node.report.refused
            if one.digest == self._digest
        }
        self._patience = {url: self._patience.get(url) or Patience() for url in refused}
        return [
            f"{url}: {one.reason}"
            for url, one in refused.items()
            if self._patience[url].is_over(is_preparing=one.is_preparing)
        ]
