"""Runs a module of ours in a model's own environment, where Konveyer is not installed.

`python -P run.py MODULE ARGUMENT ...`: the module sees this package's files as `konveyer`, and of
libraries the environment's own. What is run so imports the standard library, NumPy, what the model
locked, and nothing of ours beyond `konveyer.bundle.native`.
"""

import runpy
import sys
from pathlib import Path
from types import ModuleType

if __name__ == "__main__":
    package = ModuleType("konveyer")
    package.__path__ = [str(Path(__file__).parents[2])]
    sys.modules["konveyer"] = package
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
