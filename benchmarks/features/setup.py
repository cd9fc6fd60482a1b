"""Our side before anything is timed: a workspace with computed features, made by public commands.

python -m benchmarks.features.setup DEFINITIONS DATA ROOT [--unpublished]
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

DEFINITIONS = Path(__file__).parent / "definitions"


def make_workspace(definitions: str, data: Path, root: Path) -> None:
    """A new workspace that reads `data`, with the definitions file of that name applied."""
    shutil.rmtree(root, ignore_errors=True)
    konveyer(root.parent, "init", str(root))
    (root / "data").rmdir()
    (root / "data").symlink_to(data.resolve())
    for template in (root / "features").glob("*.py"):
        template.unlink()
    shutil.copy(DEFINITIONS / f"{definitions}.py", root / "features")
    konveyer(root, "apply")


def konveyer(root: Path, *arguments: str) -> None:
    """Run a command; what the user's own environment says to Konveyer does not count."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KONVEYER_")}
    command = [sys.executable, "-m", "konveyer", "--workspace", str(root), "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"konveyer {arguments[0]} failed: {done.stdout}{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("definitions")
    parser.add_argument("data", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--unpublished", action="store_true")
    options = parser.parse_args()
    make_workspace(options.definitions, options.data, options.root)
    if options.unpublished:
        from benchmarks.features.publishing import compute

        compute(options.root)
    else:
        konveyer(options.root, "etl", "run")


if __name__ == "__main__":
    main()
