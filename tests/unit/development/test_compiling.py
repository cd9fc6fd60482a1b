"""Compiling that does not come to an end: the model is served as it is, and its bundle says why."""

from pathlib import Path

import pytest

from konveyer.bundle.manifest import LOCK
from konveyer.core.digest import digest_file, short
from konveyer.development import compiling, environment
from konveyer.development.compiling import CompilingFailed, compile_model
from tests.manifests import manifest_with

NEEDS_ONNX = """echo '{"form": "", "reason": "it has no compiled form", "onnx": true}'"""
HANGS, KILLED = "exec sleep 60", "kill -9 $$"


class Bench:
    """A run, and in place of the Pythons of its environments scripts that tests choose."""

    def __init__(self, root: Path) -> None:
        self.run, self.environments, self.draft = root / "run", root / "venvs", root / "draft"
        self.run.mkdir()
        (self.run / LOCK).write_text("numpy==1.0 --hash=sha256:00\n")

    def python(self, script: str, *, converts: bool = False) -> None:
        name = short(digest_file(self.run / LOCK))
        if converts:
            lock = Path(environment.__file__).with_name(environment.CONVERTERS)
            name = f"{name}-{short(digest_file(lock))}"
        python = self.environments / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)

    def compiled(self) -> tuple[str, str]:
        model = compile_model(self.run, manifest_with(), self.environments, self.draft).model
        return model.form, model.reason


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_without_the_converters_a_model_is_isolated_until_it_is_submitted_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.python(NEEDS_ONNX)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    form, reason = bench.compiled()
    assert form == "isolated"
    assert "cannot be had now (uv pip sync: " in reason
    assert reason.endswith("submitting again tries it again")


def test_a_model_whose_conversion_is_killed_is_isolated(bench: Bench) -> None:
    bench.python(NEEDS_ONNX)
    bench.python(KILLED, converts=True)
    reason = "converting it to ONNX failed: its process was ended by signal 9"
    assert bench.compiled() == ("isolated", reason)


@pytest.mark.parametrize("converts", [False, True])
def test_a_model_that_takes_too_long_to_compile_is_isolated(
    bench: Bench, converts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_WITHIN_S", 0.5)
    bench.python(NEEDS_ONNX if converts else HANGS)
    if converts:
        bench.python(HANGS, converts=True)
    what = "converting it to ONNX" if converts else "compiling it"
    assert bench.compiled() == ("isolated", f"{what} took longer than 0.5 s")


def test_a_model_that_cannot_be_loaded_again_is_refused(bench: Bench) -> None:
    bench.python("echo \"ModuleNotFoundError: No module named 'helpers'\" >&2; exit 1")
    with pytest.raises(CompilingFailed, match="No module named 'helpers'"):
        bench.compiled()
