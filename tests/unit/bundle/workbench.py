"""Real models: trained by a project's code in a locked environment, then compiled."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.bundle.manifest import GOLDEN, LOCK, Golden, Manifest, ModelSpec
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.development.environment import native_command
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from tests.manifests import manifest_with

ZOO_LOCK = Path(__file__).parents[2] / "environments" / "zoo.lock"
NUMBERS = tuple(f"n{place}" for place in range(6))
TEXTS = ("city", "band", "job")
NAMES = (*NUMBERS, *TEXTS)
COLUMNS = (
    *(Column(name, ColumnType.FLOAT64) for name in NUMBERS),
    *(Column(name, ColumnType.STRING) for name in TEXTS),
)
KEY = ScalarColumn("client_id", ColumnType.INT64)
SERVICE = ResolvedService(
    name="zoo",
    version="1",
    views=(
        ResolvedView(
            name="facts",
            version="1",
            keys=(KEY,),
            columns=COLUMNS,
            defaults=(None,) * len(COLUMNS),
            space="facts.1",
            ttl_us=None,
            windowed=False,
        ),
    ),
    features=tuple(
        ResolvedFeature(name=column.name, view="facts", feature=column.name, dtype=column.dtype)
        for column in COLUMNS
    ),
)


def table(rows: int = 1500) -> pa.Table:
    """Numbers of different sizes and texts, both with nulls; labels of every task."""
    rng = np.random.default_rng(7)
    columns: dict[str, Any] = {}
    for place, name in enumerate(NUMBERS):
        values = rng.normal(size=rows) * 10.0 ** (place - 2)
        columns[name] = pa.array(values, mask=rng.random(rows) < 0.1 * (place % 3 == 0))
    for place, name in enumerate(TEXTS):
        texts = rng.choice([f"{name} {n}" for n in range(3 + 3 * place)], rows)
        columns[name] = pa.array(texts.tolist(), mask=rng.random(rows) < 0.08 * (place == 1))
    score = columns["n1"].to_numpy() * 10 + (np.array(columns["city"].to_pylist()) == "city 1")
    score = score + rng.normal(size=rows) * 0.3
    at = np.arange(rows, dtype=np.int64) * 1_000_000
    return pa.table(
        {
            **columns,
            "at": pa.array(at).cast(pa.timestamp("us", "UTC")),
            "binary": (score > 0.3).astype(np.int64),
            "multiclass": np.array(["low", "middle", "high"])[np.digitize(score, [-0.5, 0.8])],
            "regression": np.exp(np.clip(score, -3, 3)) * 10,
        }
    )


@dataclass(frozen=True)
class Trained:
    """A run's folder as training leaves it, and what it measured."""

    folder: Path
    result: dict[str, Any]

    @property
    def golden(self) -> Golden:
        return msgspec.json.decode((self.folder / GOLDEN).read_bytes(), type=Golden)

    @property
    def manifest(self) -> Manifest:
        outputs = zip(self.result["outputs"], self.result["texts"], strict=True)
        return manifest_with(
            application="zoo",
            service=SERVICE,
            categories=self.result["categories"],
            metrics=self.result["metrics"],
            model=ModelSpec(
                outputs=tuple(
                    ScalarColumn(name, ColumnType.STRING if is_text else ColumnType.FLOAT64)
                    for name, is_text in outputs
                )
            ),
        )


def trained(
    folder: Path,
    python: Path,
    code: str,
    *,
    task: str = "binary",
    given: str = "frame",
    lock: Path = ZOO_LOCK,
) -> Trained:
    """Run the harness on `code`, the text of a model.py, with the environment of `python`."""
    lay_out(folder, code, task=task, given=given)
    return run_harness(python, [folder], lock)[0]


def lay_out(folder: Path, code: str, *, task: str = "binary", given: str = "frame") -> None:
    """What the harness finds in the folder of a run."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "model.py").write_text(code)
    pq.write_table(table(), folder / "data.parquet")
    request = {
        "data": str(folder / "data.parquet"),
        "label": task,
        "task": task,
        "input": given,
        "timestamp": "at",
        "split_us": 1_000 * 1_000_000,
        "features": NAMES,
        "windowed": ["n5"],
        "parameters": {},
    }
    (folder / "request.json").write_text(json.dumps(request))


def run_harness(python: Path, folders: list[Path], lock: Path = ZOO_LOCK) -> list[Trained]:
    """Train in all of `folders`, in one process: its libraries take seconds to load."""
    command = native_command(python, "harness_of_many", *map(str, folders))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folders[0],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    return [_found(folder, lock) for folder in folders]


def _found(folder: Path, lock: Path) -> Trained:
    result = json.loads((folder / "result.json").read_text())
    shutil.copy(lock, folder / LOCK)
    (folder / GOLDEN).write_text(json.dumps(result["golden"]))
    return Trained(folder, result)
