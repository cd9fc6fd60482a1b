"""Bundles of models that have no compiled form, and families that run them."""

import shutil
from pathlib import Path
from typing import Any

import msgspec

from konveyer.bundle.manifest import CODE, GOLDEN, ISOLATED, LOCK, NATIVE, Isolated
from konveyer.bundle.store import Bundle, BundleStore
from tests.unit.bundle.workbench import Trained

LOCKS = Path(__file__).parents[2] / "environments"
# What a row asks for stands in its first feature.
FAULTY = """
import mmap, os, subprocess, time
import numpy as np

class Model:
    def __init__(self):
        self.kept, self.calls = [], 0

    def predict(self, rows):
        self.calls += 1
        for code in rows[:, 0]:
            if code == 101: raise ValueError("no such client")
            if code == 102: time.sleep(60)
            if code == 103: self.kept.append(np.ones(120_000_000 // 8))
            if code == 104: os.kill(os.getpid(), 9)
            if code == 105: time.sleep(0.2)
            if code == 110: time.sleep(0.01)
            if code == 106: return np.arange(len(rows) + 1)
            if code == 111: raise ValueError("half a pair: \\ud800")
            if code == 112:
                self.kept.append(mmap.mmap(-1, 120_000_000))
                self.kept[-1].write(bytes(120_000_000))
            if code == 113: return [subprocess.Popen(["sleep", "60"]).pid] * len(rows)
            if code == 114: return [forked()] * len(rows)
            if code == 115: return [10**400] * len(rows)
            if code == 109: return ["high"] * len(rows)
            if code == 107: return np.full(len(rows), self.calls)
        doubled = np.where(rows[:, 0] == 108, np.nan, rows[:, 0] * 2)
        return np.where(np.isinf(rows[:, 1]), np.clip(rows[:, 1], 0, 1), doubled)

def forked():
    pid = os.fork()
    if not pid:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    return pid

def train(features, labels, names, categorical, parameters):
    return Model()
"""


def packed(
    run: Trained, bundles: BundleStore, *, limits: Isolated | None = None, **more: Any
) -> Bundle:
    """The run as a bundle of the isolated form, whatever else it could be."""
    model = msgspec.structs.replace(
        run.manifest.model, form=ISOLATED, reason="a test", isolated=limits or Isolated()
    )
    manifest = msgspec.structs.replace(run.manifest, model=model, **more)

    def write(draft: Path) -> None:
        shutil.copytree(run.folder / NATIVE, draft / NATIVE)
        shutil.copytree(run.folder / CODE, draft / CODE)
        shutil.copy(run.folder / GOLDEN, draft / GOLDEN)
        shutil.copy(run.folder / LOCK, draft / LOCK)

    return bundles.pack(manifest, write)


def row(code: float, others: int = 8) -> list[Any]:
    return [code, *[None] * others]
