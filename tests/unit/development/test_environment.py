"""Environments of models, built by uv."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from konveyer.development.environment import ensure_environment
from tests.unit.bundle.workbench import ZOO_LOCK


def test_several_who_need_the_same_environment_at_once_share_it(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    wanted = ZOO_LOCK.read_text()
    start = wanted.index("cloudpickle==")
    lock.write_text(wanted[start : wanted.index("    # via", start)])

    with ThreadPoolExecutor(4) as pool:
        built = [pool.submit(ensure_environment, lock, tmp_path / "venvs") for _ in range(4)]
        (python,) = {one.result() for one in built}
    subprocess.run([python, "-c", "import cloudpickle"], check=True)
    left = [path.name for path in (tmp_path / "venvs").iterdir() if path.is_dir()]
    assert left == [python.parents[1].name]
