"""The prediction log: every row that was asked, with the features used and the answer, in Parquet.

Requests never wait for it. What is logged reaches the disk within a second, in a file that appears
whole: a clean stop loses nothing, a kill at most the last second.
"""

import logging
import queue
import threading
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
from prometheus_client import Counter

from konveyer.core.clock import format_us, now_us
from konveyer.core.ids import new_id

FLUSH_EVERY_S = 0.5
MOST_WAITING = 100_000
_ROWS_A_FILE = 20_000
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("environment", pa.string()),
        ("application", pa.string()),
        ("api_version", pa.int64()),
        ("bundle", pa.string()),
        ("release", pa.string()),
        ("side", pa.string()),
        ("caller", pa.string()),
        ("status", pa.int64()),
        ("error", pa.string()),
        ("keys", pa.string()),
        ("request", pa.string()),
        ("given", pa.string()),
        ("fallbacks", pa.string()),
        ("features", pa.string()),
        ("outputs", pa.string()),
        ("prediction", pa.float64()),
        ("latency_us", pa.int64()),
    ]
)
LISTS = ("keys", "request", "given", "fallbacks", "features", "outputs")
LIVE, CANARY, SHADOW = "live", "canary", "shadow"
_lost = Counter("konveyer_prediction_log_lost", "Entries dropped because the log was full")
_encoder = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


def shipped_folder(environment: str) -> str:
    """Where the logs of an environment's nodes are in shared storage."""
    return f"predictions/{environment}"


def log_folder(root: Path, environment: str) -> Path:
    """Where a node writes its log, below `root`."""
    return root / shipped_folder(environment)


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One row of one request; its fields are the columns of the log.

    `at_us` is kept as a timestamp, tuples as JSON lists. `side` tells which of the releases at a
    URL answered: `live`, `canary`, or `shadow`, whose answers nobody got. Of a request that failed
    `error` is the code, and what was not come to (`keys` of a body that cannot be read, `features`)
    is None. `request` are the request fields; `given` names the features whose values the caller
    sent, `fallbacks` those that stood in for an online store that did not answer. `prediction` is
    the first of the `outputs` when that is a number.
    """

    request_id: str
    at_us: int
    environment: str
    application: str
    api_version: int
    bundle: str
    release: str
    side: str
    caller: str
    status: int
    error: str | None
    keys: tuple[int | str, ...] | None
    request: tuple[object, ...] | None
    given: tuple[str, ...]
    fallbacks: tuple[str, ...]
    features: tuple[object, ...] | None
    outputs: tuple[object, ...] | None
    prediction: float | None
    latency_us: int


class PredictionLog:
    """Takes entries from any thread and writes them from one of its own. Memory is bounded.

    When more than `MOST_WAITING` entries wait (a full or slow disk), further ones are dropped and
    counted in the metric `konveyer_prediction_log_lost`; answers are never held up.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._waiting: queue.SimpleQueue[Prediction] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write, name="prediction-log")
        self._writer.start()

    def add(self, prediction: Prediction) -> None:
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(prediction)
        else:
            _lost.inc()

    def close(self) -> None:
        """Write what waits and stop."""
        self._closing.set()
        self._writer.join()

    def _write(self) -> None:
        entries: list[Prediction] = []
        while not self._closing.wait(FLUSH_EVERY_S):
            entries = self._flush(entries)
        self._flush(entries)

    def _flush(self, entries: list[Prediction]) -> list[Prediction]:
        """Write all that waits; entries that the disk refused are kept for the next try."""
        while len(entries) < MOST_WAITING and not self._waiting.empty():
            entries.append(self._waiting.get())
        while entries:
            try:
                self._write_file(entries[:_ROWS_A_FILE])
            except OSError as error:
                _log.error("the prediction log cannot be written: %s", error)
                return entries
            entries = entries[_ROWS_A_FILE:]
        return entries

    def _write_file(self, entries: list[Prediction]) -> None:
        name = new_id(f"{now_us():016d}")
        draft = self._folder / f".{name}.draft"
        pq.write_table(_as_table(entries), draft, compression="zstd")
        draft.rename(self._folder / f"{name}.parquet")


def _as_table(entries: list[Prediction]) -> pa.Table:
    """Through JSON lines, which Arrow parses in C++; `pa.array` would import pandas if it could."""
    lines = _encoder.encode_lines([_columns(entry) for entry in entries])
    options = pj.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
    read = pj.ReadOptions(use_threads=False, block_size=len(lines))
    return pj.read_json(pa.BufferReader(lines), read_options=read, parse_options=options)


def _columns(entry: Prediction) -> dict[str, Any]:
    columns = msgspec.structs.asdict(entry)
    columns["at"] = format_us(columns.pop("at_us"))
    for name in LISTS:
        columns[name] = _encoder.encode(columns[name]).decode()
    return columns
