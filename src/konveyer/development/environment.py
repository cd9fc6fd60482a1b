"""The locked environment of a model: built by uv once for each lock, and never changed."""

import subprocess
import sys
from pathlib import Path

from konveyer.bundle.native import run
from konveyer.core.digest import digest_file, short
from konveyer.core.errors import KonveyerError
from konveyer.core.files import folder_written_whole, locked, write_atomically
from konveyer.development.project import LOCK, REQUIREMENTS

CONVERTERS = "converters.lock"
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class EnvironmentFailed(KonveyerError):
    """The model's environment cannot be resolved or built."""

    code = "environment_failed"


def lock(project: Path) -> Path:
    """Resolve `requirements.in` into `requirements.lock`, with a hash for every file.

    The lock names no package index: where packages come from is a setting of the machine.
    """
    output = _uv(
        "pip",
        "compile",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-header",
        "--quiet",
        "--python-version",
        PYTHON_VERSION,
        str(project / REQUIREMENTS),
    )
    write_atomically(project / LOCK, output.encode())
    return project / LOCK


def ensure_environment(lock_file: Path, environments: Path) -> Path:
    """The Python of the environment of `lock_file`; it is built when it is not there.

    An environment is named by the digest of its lock and appears whole, so a build that was
    killed leaves nothing behind.
    """
    return _built(environments / short(digest_file(lock_file)), [lock_file])


def ensure_converters(lock_file: Path, environments: Path) -> Path:
    """The same environment with the converters to ONNX beside what is locked; for them alone."""
    converters = Path(__file__).with_name(CONVERTERS)
    name = f"{short(digest_file(lock_file))}-{short(digest_file(converters))}"
    return _built(environments / name, [lock_file, converters])


def _built(folder: Path, locks: list[Path]) -> Path:
    """Of several who need it at once one builds, and the others wait."""
    if not folder.exists():
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                with folder_written_whole(folder) as draft:
                    _build(draft, locks)
    return folder / "bin" / "python"


def _build(folder: Path, locks: list[Path]) -> None:
    _uv(
        *("venv", "--quiet", "--relocatable", "--allow-existing"),
        *("--python", sys.executable, str(folder)),
    )
    target = str(folder / "bin" / "python")
    install = ("--quiet", "--compile-bytecode", "--require-hashes", "--python", target)
    _uv("pip", "sync", *install, str(locks[0]))
    for more in locks[1:]:
        _uv("pip", "install", *install, "--no-deps", "--requirement", str(more))


def native_command(python: Path, module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours in a model's environment."""
    return [str(python), "-P", "-W", "ignore", run.__file__, module, *arguments]


def _uv(*arguments: str) -> str:
    import uv

    done = subprocess.run(
        [uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()
        raise EnvironmentFailed(
            f"uv {arguments[0]} {arguments[1]}: {reason[-1] if reason else 'failed'}",
            hint=f"check {REQUIREMENTS}, run 'konveyer lock', see that packages can be reached",
        )
    return done.stdout
