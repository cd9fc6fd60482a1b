"""Each peer's own environment: built with uv from its lock on first use, and when that changes."""

import hashlib
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent / "peers"
BUILT = PEERS / ".environments"


def python_of(peer: str) -> Path:
    """The interpreter of the peer's environment, with exactly what its lock names."""
    folder, lock = BUILT / peer, PEERS / module_of(peer) / "requirements.lock"
    python, ready = folder / "bin/python", folder / "ready"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not ready.exists() or ready.read_text() != digest:
        print(f"building the environment of {peer} ...", file=sys.stderr)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        _uv(
            "pip",
            "sync",
            "--compile-bytecode",
            "--require-hashes",
            "--python",
            str(python),
            str(lock),
        )
        ready.write_text(digest)
    return python


def module_of(peer: str) -> str:
    """A peer's folder and module: `feast-duckdb` is `benchmarks.peers.feast_duckdb`."""
    return peer.replace("-", "_")


def _uv(*arguments: str) -> None:
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([uv, *arguments, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"uv {' '.join(arguments)} failed: {done.stderr}"
            "Next: run 'make setup', and see that the package index can be reached."
        )
