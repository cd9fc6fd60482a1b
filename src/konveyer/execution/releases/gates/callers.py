"""Callers of what production serves, just before a release answers them."""

from konveyer.bundle.store import Bundle
from konveyer.execution.releases.compatibility import breaking_changes
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import current_live, stage_row_or_none
from konveyer.execution.releases.verdict import Verdict


def stumbling(context: GateContext, bundle: Bundle, rule: str) -> Verdict | None:
    """A no, when production went back to a release that integration may not have compared this one
    with, and whose callers could not stay as they are.
    """
    manifest = bundle.manifest
    with context.services.catalog.reading() as session:
        live = current_live(session, PROD, manifest.application, manifest.api_version)
        compared = stage_row_or_none(session, context.release, State.INTEGRATION)
    if live is None or compared is None or live.digest == bundle.digest:
        return None
    if live.since_us < compared.started_us:
        return None
    breaking = breaking_changes(context.services.bundles.open(live.digest).manifest, manifest)
    if not breaking:
        return None
    return Verdict(
        passed=False,
        rule=rule,
        measured=f"production went back to {live.release_id} since integration began, and its "
        f"callers cannot stay as they are: {'; '.join(breaking)}: raise api_version",
        limit="no breaking change",
        evidence={"breaking_changes": breaking},
    )
