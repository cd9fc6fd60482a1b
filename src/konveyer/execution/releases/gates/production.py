"""Production: the release becomes the live version, and the production nodes take it up."""

from konveyer.bundle.store import Bundle
from konveyer.core.errors import KonveyerError
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.gates.callers import stumbling
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.live import put_live, take_back
from konveyer.execution.releases.nodes import wait_until_all_serve
from konveyer.execution.releases.records import was_replaced
from konveyer.execution.releases.verdict import Verdict

WENT_BACK = "production went back to another release meanwhile"
_RULE = "production serves the release"


def production_stage(context: GateContext, bundle: Bundle) -> Verdict:
    """When a node does not take the release up, or cannot be told of it, production goes back to
    what it served.
    """
    services, manifest = context.services, bundle.manifest
    with services.catalog.reading() as session:
        if was_replaced(session, PROD, context.release):
            # It was here before a kill; whoever took it back since has the last word.
            return _verdict(WENT_BACK, passed=False)
    refused = stumbling(context, bundle, _RULE)
    if refused is not None:
        return refused
    try:
        put_live(
            services.catalog,
            services.storage,
            release=context.release,
            environment=PROD,
            manifest=manifest,
        )
        nodes = wait_until_all_serve(
            services.storage, PROD, manifest.application, manifest.api_version, bundle.digest
        )
    except KonveyerError:
        take_back(services.catalog, services.storage, release=context.release, environment=PROD)
        raise
    measured = (
        f"{len(nodes)} node(s) serve it" if nodes else "no node is up; the next will serve it"
    )
    return _verdict(measured, passed=True, nodes=[node.url for node in nodes])


def _verdict(measured: str, *, passed: bool, **evidence: object) -> Verdict:
    return Verdict(
        passed=passed,
        rule=_RULE,
        measured=measured,
        limit="every node that is up",
        evidence=evidence,
    )
