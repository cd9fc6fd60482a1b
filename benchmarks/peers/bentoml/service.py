"""The pipeline as a BentoML service with typed columns; `BENCH_MODEL` names its file.

Pandas frames are what BentoML's own examples take for tabular models.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import pandas as pd

from benchmarks.peers.model_file import POSITIVE, pipeline


@bentoml.service(metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Scorer:
    def __init__(self) -> None:
        self._model = pipeline(Path(os.environ["BENCH_MODEL"]))

    @bentoml.api
    def predict(self, rows: list[dict[str, Any]]) -> list[float]:
        scores: list[float] = self._model.predict_proba(pd.DataFrame(rows))[:, POSITIVE].tolist()
        return scores
