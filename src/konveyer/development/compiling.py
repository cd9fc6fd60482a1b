"""Compiling at release: the trained object's form for nodes, and whether it says the same."""

import shutil
import subprocess
from pathlib import Path

import msgspec

from konveyer.bundle.compiled import compiled_in
from konveyer.bundle.manifest import COMPILED, GOLDEN, ISOLATED, LOCK, Golden, Manifest
from konveyer.bundle.native.onnx_form import DOUBLE, FLOAT
from konveyer.bundle.parity import parity
from konveyer.core.errors import KonveyerError
from konveyer.development.environment import (
    EnvironmentFailed,
    ensure_converters,
    ensure_environment,
    native_command,
)

_COMPILE = "konveyer.bundle.native.compile"
_WITHIN_S = 600


class _Form(msgspec.Struct, frozen=True):
    form: str
    reason: str
    onnx: bool


class CompilingFailed(KonveyerError):
    """The trained object cannot be loaded where it was trained."""

    code = "compiling_failed"


def compile_model(run: Path, manifest: Manifest, environments: Path, draft: Path) -> Manifest:
    """Write the compiled form of the run's model into `draft`; the manifest then names it.

    Without a form that answers the recorded cases as the model does, the form is "isolated" and
    the manifest says why. The model's objects are loaded in its own environment, one of
    `environments`, or a copy of it with the converters to ONNX; never here.
    """
    made = draft / COMPILED
    python = ensure_environment(run / LOCK, environments)
    answer = _compile(run, python, made)
    compiled, reason = _checked(run, draft, manifest, answer)
    if compiled is None and answer.onnx:
        compiled, reason = _as_onnx(run, manifest, environments, draft)
    if compiled is not None:
        return compiled
    _clear(made)
    spec = msgspec.structs.replace(manifest.model, form=ISOLATED, reason=reason)
    return msgspec.structs.replace(manifest, model=spec)


def _as_onnx(
    run: Path, manifest: Manifest, environments: Path, draft: Path
) -> tuple[Manifest | None, str]:
    """The manifest with the form, or why there is none; packages may be away only for now."""
    try:
        python = ensure_converters(run / LOCK, environments)
    except EnvironmentFailed as error:
        return None, (
            f"the packages that convert it to ONNX cannot be had now ({error.message}); "
            "submitting again tries it again"
        )
    compiled, reason = None, ""
    for kind in (DOUBLE, FLOAT):
        _clear(draft / COMPILED)
        answer = _compile(run, python, draft / COMPILED, kind)
        compiled, reason = _checked(run, draft, manifest, answer)
        if compiled is not None:
            break
    return compiled, reason


def _clear(made: Path) -> None:
    """A process that was ended early may have made nothing."""
    shutil.rmtree(made, ignore_errors=True)


def _checked(
    run: Path, draft: Path, manifest: Manifest, answer: _Form
) -> tuple[Manifest | None, str]:
    """The manifest with the form, when that answers as the model does; otherwise why not."""
    if not answer.form:
        return None, answer.reason
    spec = msgspec.structs.replace(manifest.model, form=answer.form, reason="")
    compiled = msgspec.structs.replace(manifest, model=spec)
    reason = _difference(run, draft, compiled)
    return (None, reason) if reason else (compiled, "")


def _difference(run: Path, draft: Path, manifest: Manifest) -> str:
    """How the compiled model is not the native one; nothing when it is."""
    cases = msgspec.json.decode((run / GOLDEN).read_bytes(), type=Golden).cases
    try:
        found = parity(compiled_in(draft, manifest).predict, cases)
    except KonveyerError as error:
        return f"its {manifest.model.form} form: {error.message}"
    if found.holds(manifest.release.tolerance):
        return ""
    return f"its {manifest.model.form} form does not answer like the model: {found}"


def _compile(run: Path, python: Path, folder: Path, *kind: str) -> _Form:
    command = native_command(python, _COMPILE, str(run), str(folder), *kind)
    what = "converting it to ONNX" if kind else "compiling it"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=run, timeout=_WITHIN_S
        )
    except subprocess.TimeoutExpired:
        return _Form(form="", reason=f"{what} took longer than {_WITHIN_S} s", onnx=False)
    if done.returncode and kind:
        # Without the converters the model was loaded.
        return _Form(form="", reason=f"{what} failed: {_last_words(done)}", onnx=False)
    if done.returncode:
        raise CompilingFailed(
            f"The trained model cannot be loaded again: {_last_words(done)}",
            hint="return an object from train() that can be pickled and loaded",
            detail={"traceback": "\n".join(done.stderr.strip().splitlines()[-15:])},
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Form)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"its process ended with exit status {done.returncode}"
