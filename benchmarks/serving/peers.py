"""The servers that we compare with: how each starts, is asked, and answers.

Each serves the same scikit-learn pipeline at its own defaults, from an environment of its own.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import module_of, python_of

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`body` asks for one client with all features; `score` finds the answer's one number.

    `command` takes the peer's own folder, which `prepare` filled, and a port.
    """

    name: str
    path: str
    ready_path: str
    body: Callable[[Row], Any]
    score: Callable[[Any], float]
    command: Callable[[Path, int], Sequence[str]]
    prepare: str | None = None

    @property
    def python(self) -> Path:
        return python_of(self.name)

    def start_command(self, folder: Path, port: int) -> list[str]:
        return [str(self.python), "-m", *self.command(folder, port)]

    def make_ready(self, model: Path, folder: Path) -> None:
        """What the peer needs once before it can start; not measured."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.prepare is not None:
            module = f"benchmarks.peers.{module_of(self.name)}.{self.prepare}"
            command = [str(self.python), "-W", "ignore", "-m", module, str(model), str(folder)]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    def environment(self, model: Path, folder: Path) -> Mapping[str, str]:
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "BENCH_MODEL": str(model),
            "BENTOML_HOME": str(folder / "home"),
            "BENTOML_DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": "/tmp",
        }


SERVED_PEERS = (
    Peer(
        name="mlflow",
        path="/invocations",
        ready_path="/ping",
        body=lambda row: {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}},
        score=lambda answer: answer["predictions"][0][1],
        command=lambda folder, port: (
            *("mlflow", "models", "serve", "--model-uri", str(folder / "model")),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
        ),
        prepare="prepare",
    ),
    Peer(
        name="bentoml",
        path="/predict",
        ready_path="/readyz",
        body=lambda row: {"rows": [row]},
        score=lambda answer: answer[0],
        command=lambda _folder, port: (
            *("bentoml", "serve", "benchmarks.peers.bentoml.service:Scorer"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ),
    ),
    Peer(
        name="ray-serve",
        path="/",
        ready_path="/-/healthz",
        body=lambda row: [row],
        score=lambda answer: answer[0],
        command=lambda _folder, port: ("benchmarks.peers.ray_serve.application", str(port)),
    ),
)


def write_bodies(path: Path, rows: Sequence[Row], body: Callable[[Row], Any]) -> None:
    path.write_text("".join(json.dumps(body(row)) + "\n" for row in rows))
