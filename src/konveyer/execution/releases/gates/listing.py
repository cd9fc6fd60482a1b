"""The automatic stages and what runs in each."""

from collections.abc import Callable

from konveyer.bundle.store import Bundle
from konveyer.execution.releases.gates.canary import canary_stage
from konveyer.execution.releases.gates.checks import checks_gate
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.functional import functional_gate
from konveyer.execution.releases.gates.integration import integration_gate
from konveyer.execution.releases.gates.load import load_gate
from konveyer.execution.releases.gates.production import production_stage
from konveyer.execution.releases.gates.replay import replay_gate
from konveyer.execution.releases.gates.shadow import shadow_gate
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.verdict import Verdict

Gate = Callable[[GateContext, Bundle], Verdict]

GATES: dict[State, Gate] = {
    State.CHECKS: checks_gate,
    State.FUNCTIONAL: functional_gate,
    State.INTEGRATION: integration_gate,
    State.LOAD: load_gate,
    State.REPLAY: replay_gate,
    State.SHADOW: shadow_gate,
    State.CANARY: canary_stage,
    State.PRODUCTION: production_stage,
}
