"""Checks: the code is clean, its tests pass, and its features exist in the registry."""

from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.manifest import CODE, ISOLATED, LOCK
from konveyer.bundle.store import Bundle
from konveyer.core.errors import KonveyerError
from konveyer.development.checks import CheckResult, check_code
from konveyer.development.environment import ensure_environment
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.verdict import Verdict
from konveyer.feature_store.etl.runs import readable_table


def checks_gate(context: GateContext, bundle: Bundle) -> Verdict:
    python = ensure_environment(bundle.path / LOCK, context.services.environments)
    results = check_code(bundle.path / CODE, python)
    spec = bundle.manifest.model
    form = f"runs as {spec.form}" + (f": {spec.reason}" if spec.reason else "")
    return judge([*results, _signature(bundle), _features(context, bundle)], form)


def judge(results: list[CheckResult], form: str) -> Verdict:
    failed = [result for result in results if not result.passed]
    return Verdict(
        passed=not failed,
        rule="code, tests, signature and features are in order",
        measured=", ".join(f"{r.name} {'passed' if r.passed else 'failed'}" for r in results)
        + f"; {form}",
        limit="all pass",
        evidence={result.name: result.evidence for result in results},
    )


def _signature(bundle: Bundle) -> CheckResult:
    """The model reads exactly the features of its contract."""
    columns = bundle.manifest.service.columns
    form = bundle.manifest.model.form
    try:
        if form != ISOLATED:
            compiled_model(bundle)
    except KonveyerError as error:
        return CheckResult(name="signature", passed=False, evidence=str(error))
    listed = ", ".join(f"{column.name} {column.dtype}" for column in columns)
    return CheckResult(name="signature", passed=True, evidence=listed)


def _features(context: GateContext, bundle: Bundle) -> CheckResult:
    """Every view is computed in the version that the model was trained on."""
    lines = []
    try:
        with context.services.catalog.reading() as session:
            for view in bundle.manifest.service.views:
                ref, run = readable_table(session, view.name, view.version)
                lines.append(f"{view.name} {view.version}: table {ref.table_version}, {run.run_id}")
    except KonveyerError as error:
        return CheckResult(name="features", passed=False, evidence=str(error))
    return CheckResult(name="features", passed=True, evidence="\n".join(lines))
