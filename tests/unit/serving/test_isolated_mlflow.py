"""MLflow models, in an environment with MLflow: any pyfunc, in a process of its own."""

import asyncio
from pathlib import Path

import pytest

from konveyer.bundle.parity import parity
from konveyer.bundle.store import BundleStore
from konveyer.development.compiling import compile_model
from konveyer.development.environment import ensure_environment
from konveyer.execution.serving.families import families_of
from konveyer.execution.serving.lanes import lane_of
from tests.unit.bundle.workbench import trained
from tests.unit.serving.isolation import LOCKS, packed

pytestmark = pytest.mark.slow

PYTHON_MODEL = """
import mlflow

class Shares(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        first = model_input["n1"].fillna(0).clip(-1, 1)
        low = (first < 0) * 0.8 + 0.1
        return model_input.assign(low=low, high=1 - low)[["low", "high"]]

def train(features, labels, names, categorical, parameters):
    return {}
"""
BY_URI = """
    import tempfile
    folder = tempfile.mkdtemp() + "/kept"
    mlflow.pyfunc.save_model(folder, python_model=Shares(), pip_requirements=[])
    return folder
"""
LOGGED = """
    import os
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    mlflow.set_tracking_uri("tracking")
    kept = mlflow.pyfunc.log_model(name="kept", python_model=Shares(), pip_requirements=[])
    return mlflow.pyfunc.load_model(kept.model_uri)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_environment(LOCKS / "mlflow.lock", tmp_path_factory.mktemp("venvs"))


@pytest.mark.parametrize(
    "returned", ["    return Shares()", BY_URI, LOGGED], ids=["object", "uri", "loaded"]
)
def test_any_pyfunc_is_served(returned: str, python: Path, tmp_path: Path) -> None:
    code = PYTHON_MODEL.replace("    return {}", returned)
    run = trained(tmp_path / "run", python, code, task="regression", lock=LOCKS / "mlflow.lock")
    assert run.result["outputs"] == ["low", "high"]
    environments = python.parents[2]
    manifest = compile_model(run.folder, run.manifest, environments, tmp_path / "draft")
    assert manifest.model.form == "isolated"
    assert manifest.model.reason == "an MLflow model runs its own code"
    bundle = packed(run, BundleStore(tmp_path / "bundles"))
    with families_of(bundle, environments) as families, asyncio.Runner() as runner:
        lane = lane_of(bundle, families)
        cases = run.golden.cases
        found = parity(lambda rows: runner.run(lane.predict(rows)), cases[::20])
        lane.close()
        runner.run(asyncio.sleep(0.01))
    assert found.holds(0.0), str(found)
    assert len(found.differences) > 10


def test_a_loaded_model_that_was_never_logged_is_refused(python: Path, tmp_path: Path) -> None:
    code = PYTHON_MODEL.replace("    return {}", BY_URI)
    code = code.replace("return folder", "return mlflow.pyfunc.load_model(folder)")
    with pytest.raises(AssertionError, match="return the URI of the MLflow model"):
        trained(tmp_path / "run", python, code, task="regression", lock=LOCKS / "mlflow.lock")
