"""Automatic checks of a model project's code: ruff, and the project's own tests."""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from konveyer.development.project import TESTS

_LINES_KEPT = 20
_WITHIN_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check: what it was, whether it passed, and the end of what it printed."""

    name: str
    passed: bool
    evidence: str


def check_code(code: Path, python: Path) -> list[CheckResult]:
    """Run ruff here and the tests in the model's environment, on a copy of `code`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "code"
        shutil.copytree(code, copy)
        linted = _run("ruff", [sys.executable, "-m", "ruff", "check", "--no-cache", "."], copy)
        if not any((copy / TESTS).glob("test_*.py")):
            missing = f"{TESTS}/ has no test_*.py"
            return [linted, CheckResult(name="tests", passed=False, evidence=missing)]
        tests = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
        return [linted, _run("tests", tests, copy)]


def _run(name: str, command: list[str], folder: Path) -> CheckResult:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return CheckResult(name=name, passed=False, evidence=f"not done within {_WITHIN_S} s")
    printed = (done.stdout + done.stderr).strip().splitlines()
    evidence = "\n".join(printed[-_LINES_KEPT:])
    return CheckResult(name=name, passed=done.returncode == 0, evidence=evidence)
