"""What takes long to make is made once in a test run, by the worker that needs it first."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from konveyer.core.files import locked


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` filled, in this worker or another; not to be changed."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made, mark = folder / "shared" / name, folder / "shared" / f"{name}.made"
    with locked(folder / "shared" / f"{name}.lock"):
        if not mark.exists():
            shutil.rmtree(made, ignore_errors=True)  # of a worker that failed
            make(made)
            mark.touch()
    return made
