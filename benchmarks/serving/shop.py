"""Our side: a workspace whose model went through training, review and every gate.

    python -m benchmarks.serving.shop DATA ROOT

It is made by the public commands; `facts.json` in its folder says what the benches need of it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

APPLICATION = "scoring"
FACTS = "facts.json"
HERE = Path(__file__).parent
AUTOMATIC = ("checks", "functional", "integration", "load", "production")


def make_shop(data: Path, root: Path) -> None:
    """A new workspace at `root` that reads `data`, with the model live in production."""
    shutil.rmtree(root, ignore_errors=True)
    konveyer(root.parent, "init", str(root))
    (root / "data").rmdir()
    (root / "data").symlink_to(data.resolve())
    for template in (root / "features").glob("*.py"):
        template.unlink()
    shutil.copy(HERE / "definitions.py", root / "features")
    shutil.copytree(HERE / "project", root / "models" / APPLICATION)
    konveyer(root, "apply")
    konveyer(root, "etl", "run")
    labels = ("--labels", "data/labels.parquet", "--label", "defaulted")
    konveyer(root, "training-set", "build", APPLICATION, *labels)
    konveyer(root, "train", f"models/{APPLICATION}")
    konveyer(root, "people", "add", "boris", "--role", "ml-engineer")
    konveyer(root, "people", "token", "boris", "--save")
    release = konveyer(root, "submit", f"models/{APPLICATION}")["id"]
    konveyer(root, "--profile", "boris", "release", "approve", release)
    shown = konveyer(root, "release", "show", release)
    key = konveyer(root, "key", "create", "bench")["key"]
    worked = {stage["stage"]: stage["worked_s"] for stage in shown["stages"]}
    facts = {
        "digest": shown["digest"],
        "key": key,
        "gates_s": {stage: seconds for stage, seconds in worked.items() if stage in AUTOMATIC},
    }
    (root / FACTS).write_text(json.dumps(facts))


def konveyer(root: Path, *arguments: str) -> Any:
    """The JSON answer of a command; what the user's own environment says does not count."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KONVEYER_")}
    command = [sys.executable, "-m", "konveyer", "--workspace", str(root), "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"konveyer {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


if __name__ == "__main__":
    make_shop(Path(sys.argv[1]), Path(sys.argv[2]))
