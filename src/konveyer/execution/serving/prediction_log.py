"""The prediction log: every row that was asked, with the features used and the answer.

Requests never wait for it. What is logged is in a segment, a file of JSON lines, within half a
second: a clean stop loses nothing, a kill at most the last second. A process of its own makes
Parquet of segments (`prediction_files`), so that a node needs no Arrow and answers without pauses.
"""

import logging
import os
import queue
import secrets
import threading
import time
from pathlib import Path
from typing import IO

import msgspec

from konveyer.core.clock import now_us
from konveyer.core.infinite import in_words, may_hold_infinite
from konveyer.execution.serving.metrics import LOG_LOST
from konveyer.execution.serving.segments import CLOSED, segment_name

FLUSH_EVERY_S = 0.25
MOST_WAITING = 100_000
# More than a process is sent between two flushes: a disk that keeps up loses nothing.
MOST_WAITING_BYTES = 256_000_000
# While lines are made nothing else of the process runs: few at a time.
_ROWS_AT_ONCE = 100
_SEGMENT_BYTES = 64_000_000
SEGMENT_S = 60.0
LIVE, CANARY, SHADOW = "live", "canary", "shadow"
_encoder = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One row of one request; its fields are the columns of the log.

    `side` tells which of the releases at a URL answered: `live`, `canary`, or `shadow`, whose
    answers nobody got. Of a request that failed `error` is the code, and what was not come to
    (`keys` of a body that cannot be read, `features`) is None. `request` are the request fields;
    `given` names the features whose values the caller sent, `fallbacks` those that stood in for an
    online store that did not answer. `prediction` is the first of the `outputs` when that is a
    number. Features that are infinite are written as the texts "Infinity" and "-Infinity".
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


_Waiting = tuple[Prediction, int]  # with the bytes that were sent for it


class PredictionLog:
    """Takes entries from any thread and writes them from one of its own. Memory is bounded.

    A segment is closed, to be packed, when it is `segment_s` old. When `MOST_WAITING` entries wait,
    or such for which callers sent `MOST_WAITING_BYTES` (a full or slow disk), further ones are
    dropped and counted in the metric `konveyer_prediction_log_lost`; answers are never held up.
    """

    def __init__(self, folder: Path, *, segment_s: float = SEGMENT_S) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._segment_s = folder, segment_s
        self._waiting: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        # Of all that is not written, also when it is out of the queue.
        self._waiting_bytes, self._counting = 0, threading.Lock()
        self._closing = threading.Event()
        self._segment: _Segment | None = None
        self._is_failing = False
        self._writer = threading.Thread(target=self._write, name="prediction-log")
        self._writer.start()

    def add(self, prediction: Prediction, sent_bytes: int = 0) -> None:
        """`sent_bytes`, its share of a request's body, stands for the size of the entry: to measure
        that would take time, and it is callers who send texts of any length."""
        with self._counting:
            waiting_bytes = self._waiting_bytes + sent_bytes
            has_room = self._waiting.qsize() < MOST_WAITING and waiting_bytes <= MOST_WAITING_BYTES
            if has_room:
                self._waiting_bytes = waiting_bytes
        if has_room:
            self._waiting.put((prediction, sent_bytes))
        else:
            LOG_LOST.inc()

    def close(self) -> None:
        """Write what waits and stop. What cannot be written now is lost, and counted."""
        self._closing.set()
        self._writer.join()

    def _write(self) -> None:
        entries: list[_Waiting] = []
        while not self._closing.wait(FLUSH_EVERY_S):
            entries = self._flush(entries)
            if self._segment is not None and self._segment.is_full(self._segment_s):
                self._close_segment()
        entries = self._flush(entries)
        lost = len(entries) + self._waiting.qsize()
        if lost:
            LOG_LOST.inc(lost)
            _log.error("%d row(s) of the prediction log are lost", lost)
        self._close_segment()

    def _flush(self, entries: list[_Waiting]) -> list[_Waiting]:
        """Write all that waits; entries that the disk refused are kept for the next try."""
        for _ in range(MOST_WAITING):
            while len(entries) < _ROWS_AT_ONCE and not self._waiting.empty():
                entries.append(self._waiting.get())
            if not entries:
                break
            try:
                if self._segment is None:
                    self._segment = _Segment(self._folder)
                self._segment.append(_lines([one for one, _ in entries]))
            except OSError as error:
                if not self._is_failing:
                    _log.error("the prediction log cannot be written: %s", error)
                self._is_failing = True
                return entries
            self._is_failing = False
            with self._counting:
                self._waiting_bytes -= sum(sent_bytes for _, sent_bytes in entries)
            entries = []
        return entries

    def _close_segment(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            segment.close()
        except OSError as error:
            # The thread must live: without it all that is asked from now on would be lost.
            _log.error("a file of the prediction log cannot be closed: %s", error)


def _lines(rows: list[Prediction]) -> bytes:
    if may_hold_infinite([one.features for one in rows]):
        rows = [_in_words(one) for one in rows]
    return _encoder.encode_lines(rows)


def _in_words(row: Prediction) -> Prediction:
    if row.features is None:
        return row
    return msgspec.structs.replace(row, features=tuple(map(in_words, row.features)))


class _Segment:
    """The file that is written now."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # it may have been removed since
        self._path = folder / segment_name(now_us(), os.getpid(), secrets.token_hex(4))
        self._file: IO[bytes] = self._path.open("wb", buffering=0)
        self._bytes, self._opened_s = 0, time.monotonic()

    def append(self, lines: bytes) -> None:
        """All of the lines or, when that fails, none."""
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:])
        except OSError:
            self._file.truncate(self._bytes)
            self._file.seek(self._bytes)
            raise
        self._bytes += len(lines)

    def is_full(self, most_s: float) -> bool:
        return self._bytes > _SEGMENT_BYTES or time.monotonic() > self._opened_s + most_s

    def close(self) -> None:
        """What is closed is ready to be packed."""
        self._file.close()
        if self._bytes:
            self._path.rename(self._path.with_suffix(CLOSED))
        else:
            self._path.unlink(missing_ok=True)
