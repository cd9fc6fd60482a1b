"""The environment that models of these tests are trained in."""

from pathlib import Path

import pytest

from konveyer.development.environment import ensure_environment

LOCKS = Path(__file__).parents[1] / "environments"


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its Python; scikit-learn, LightGBM, XGBoost and CatBoost."""
    return ensure_environment(LOCKS / "zoo.lock", tmp_path_factory.mktemp("venvs"))
