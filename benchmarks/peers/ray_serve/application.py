"""The pipeline as a Ray Serve deployment, at its defaults: one replica.

BENCH_MODEL=model.pkl python -m benchmarks.peers.ray_serve.application PORT
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray import serve
from starlette.requests import Request

from benchmarks.peers.model_file import POSITIVE, pipeline


class Scorer:
    def __init__(self, path: str) -> None:
        self._model = pipeline(Path(path))

    async def __call__(self, request: Request) -> list[float]:
        rows: list[dict[str, Any]] = await request.json()
        scores: list[float] = self._model.predict_proba(pd.DataFrame(rows))[:, POSITIVE].tolist()
        return scores


if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(sys.argv[1])},
        logging_config={"enable_access_log": False},
    )
    serve.run(serve.deployment(Scorer).bind(os.environ["BENCH_MODEL"]))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
