"""Compiling at release: the trained object's form for nodes, and whether it says the same."""

import shutil
import subprocess
from pathlib import Path

import msgspec

from konveyer.bundle.compiled import compiled_in
from konveyer.bundle.manifest import COMPILED, GOLDEN, ISOLATED, Golden, Manifest
from konveyer.bundle.parity import parity
from konveyer.core.errors import KonveyerError
from konveyer.development.environment import native_command

_COMPILE = "konveyer.bundle.native.compile"
_WITHIN_S = 600


class _Form(msgspec.Struct, frozen=True):
    form: str
    reason: str


class CompilingFailed(KonveyerError):
    """The trained object cannot be loaded where it was trained."""

    code = "compiling_failed"


def compile_model(run: Path, manifest: Manifest, python: Path, draft: Path) -> Manifest:
    """Write the compiled form of the run's model into `draft`; the manifest then names it.

    Without a form that answers the recorded cases as the model does, the form is "isolated" and
    the manifest says why. `python` is that of the model's environment: its objects are loaded
    there, never here.
    """
    made = draft / COMPILED
    answer = _compile(run, python, made)
    reason = answer.reason
    if answer.form:
        spec = msgspec.structs.replace(manifest.model, form=answer.form, reason="")
        compiled = msgspec.structs.replace(manifest, model=spec)
        reason = _difference(run, draft, compiled)
        if not reason:
            return compiled
    shutil.rmtree(made)
    spec = msgspec.structs.replace(manifest.model, form=ISOLATED, reason=reason)
    return msgspec.structs.replace(manifest, model=spec)


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


def _compile(run: Path, python: Path, folder: Path) -> _Form:
    command = native_command(python, _COMPILE, str(run), str(folder))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=run, timeout=_WITHIN_S
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CompilingFailed(
            f"The trained model cannot be loaded again: {lines[-1] if lines else 'it crashed'}",
            hint="return an object from train() that can be pickled and loaded",
            detail={"traceback": "\n".join(lines[-15:])},
        )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=_Form)
