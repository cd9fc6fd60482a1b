"""Which version answers a request, and what is logged of the others."""

import asyncio
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.call import Call
from konveyer.execution.serving.contract import AskedRow, RequestContract
from konveyer.execution.serving.desired import DesiredVersion
from konveyer.execution.serving.errors import EntityNotFound, ModelUnavailable
from konveyer.execution.serving.metrics import Meter
from konveyer.execution.serving.prediction_log import (
    CANARY,
    LIVE,
    MOST_WAITING_BYTES,
    PredictionLog,
)
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.predictor import ask_alone, predict
from konveyer.execution.serving.reading import Found, Row
from konveyer.execution.serving.router import Endpoint, LiveVersion, Loaded
from konveyer.execution.serving.segments import log_folder
from konveyer.execution.serving.shadows import Shadows
from konveyer.execution.serving.sides import WHOLE
from tests.unit.serving.test_router import SERVICE

CLIENT = {"client_id": 7}


@dataclass(frozen=True)
class Answering:
    """A version's features and model at once: it knows some clients, or is not there."""

    output: float
    known: Collection[int]
    is_up: bool = True

    async def rows(self, asked: list[AskedRow]) -> Found:
        return Found(
            [(1.0, "Oslo") if (row.keys or (0,))[0] in self.known else None for row in asked]
        )

    async def predict(self, rows: list[Row]) -> list[Row]:
        if not self.is_up:
            raise ModelUnavailable("The model's process is gone.", hint="wait")
        return [(self.output,) for _ in rows]


def version(side: str, answering: Answering) -> LiveVersion:
    model = cast("Any", answering)
    loaded = Loaded(
        digest=f"sha256:{side}",
        manifest=cast("Any", SimpleNamespace(application="scoring", api_version=1)),
        contract=RequestContract(SERVICE),
        reader=model,
        lane=model,
    )
    return LiveVersion(
        loaded=loaded,
        release=f"rel-{side}",
        since_us=0,
        side=side,
        per_mille=WHOLE,
        meter=Meter("scoring", 1, side),
    )


@contextmanager
def logging_to(root: Path) -> Iterator[PredictionLog]:
    log = PredictionLog(log_folder(root, "prod"))
    try:
        yield log
    finally:
        log.close()


def asked(
    root: Path, live: Answering, canary: Answering, *, sent_bytes: int = 15
) -> tuple[float, list[tuple[str, int]]]:
    """The answer for one client who belongs to the canary, and what the log has of it."""
    endpoint = Endpoint(
        desired=DesiredVersion(
            application="scoring", api_version=1, digest="", release="", since_us=0
        ),
        live=version(LIVE, live),
        canary=version(CANARY, canary),
        shadows=(),
    )
    call = Call(
        request_id="r-1", environment="prod", started_s=time.perf_counter(), sent_bytes=sent_bytes
    )
    with logging_to(root) as log:
        shadows = Shadows(log, ask_alone, lambda: 0)
        asking = predict(endpoint, [CLIENT], call, log, shadows, is_single=True)
        ((output,),) = asyncio.run(asking).outputs
    return cast("float", output), logged(root)


def logged(root: Path) -> list[tuple[str, int]]:
    rows = read_predictions(FolderStorage(root), "prod")
    return sorted((row["side"], row["status"]) for row in rows)


def test_a_canary_answers_for_whom_it_knows(tmp_path: Path) -> None:
    answer = asked(tmp_path, Answering(0.1, known={7}), Answering(0.2, known={7}))
    assert answer == (0.2, [(CANARY, 200)])


def test_a_row_counts_for_the_log_with_what_was_sent_for_it(tmp_path: Path) -> None:
    knows = Answering(0.2, known={7})
    assert asked(tmp_path, knows, knows, sent_bytes=MOST_WAITING_BYTES + 1) == (0.2, [])


@pytest.mark.parametrize(
    ("canary", "status"),
    [
        (Answering(0.2, known={}), EntityNotFound.status),
        (Answering(0.2, known={7}, is_up=False), ModelUnavailable.status),
    ],
)
def test_the_live_version_answers_where_a_canary_fails(
    tmp_path: Path, canary: Answering, status: int
) -> None:
    answer = asked(tmp_path, Answering(0.1, known={7}), canary)
    assert answer == (0.1, [(CANARY, status), (LIVE, 200)])


def test_a_client_whom_neither_version_knows_is_no_failure_of_the_canary(tmp_path: Path) -> None:
    with pytest.raises(EntityNotFound):
        asked(tmp_path, Answering(0.1, known={}), Answering(0.2, known={}))
    assert logged(tmp_path) == []
