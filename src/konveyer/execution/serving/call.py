"""One request on its way, and what the prediction log keeps of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.prediction_log import Prediction, PredictionLog
from konveyer.execution.serving.reading import Row
from konveyer.execution.serving.router import LiveVersion


@dataclass(slots=True, kw_only=True)
class Call:
    """A request; what becomes known of it on its way is filled in.

    `started_s` is monotonic, and so is `ended_s`, of one that is over. `sent_bytes` is the length
    of its body.
    """

    request_id: str
    environment: str
    started_s: float
    sent_bytes: int
    ended_s: float | None = None
    caller: str = ""
    version: LiveVersion | None = None
    asked: Sequence[AskedRow] | None = None

    def log_answer(
        self,
        log: PredictionLog,
        asked: Sequence[AskedRow],
        rows: Sequence[Row],
        outputs: Sequence[Row],
        fallbacks: tuple[str, ...],
    ) -> None:
        """Note the features used and the answer of each row."""
        at_us, latency_us = now_us(), self._latency_us()
        for one, features, answer in zip(asked, rows, outputs, strict=True):
            self._log(log, 200, None, at_us, latency_us, one, fallbacks, features, answer)

    def log_failure(self, log: PredictionLog, error: type[KonveyerError]) -> None:
        """Note each row of a request that failed; one without keys when it could not be read."""
        at_us, latency_us = now_us(), self._latency_us()
        for one in (None,) if self.asked is None else self.asked:
            self._log(log, int(error.status), error.code, at_us, latency_us, one, (), None, None)

    def seconds(self) -> float:
        """Since the server was given the request, until it was over."""
        ended_s = time.perf_counter() if self.ended_s is None else self.ended_s
        return ended_s - self.started_s

    def _latency_us(self) -> int:
        return int(self.seconds() * 1e6)

    def _log(
        self,
        log: PredictionLog,
        status: int,
        error: str | None,
        at_us: int,
        latency_us: int,
        asked: AskedRow | None,
        fallbacks: tuple[str, ...],
        features: Row | None,
        outputs: Row | None,
    ) -> None:
        version = self.version
        if version is None:
            return
        manifest = version.loaded.manifest
        first = outputs[0] if outputs else None
        given: tuple[str, ...] = ()
        if asked is not None and asked.given:
            names = version.loaded.contract.features
            given = tuple(names[place].name for place in asked.given)
        log.add(
            Prediction(
                self.request_id,
                at_us,
                self.environment,
                manifest.application,
                manifest.api_version,
                version.loaded.digest,
                version.release,
                version.side,
                self.caller,
                status,
                error,
                None if asked is None else asked.keys,
                None if asked is None else asked.fields,
                given,
                fallbacks,
                features,
                outputs,
                float(first) if isinstance(first, int | float) else None,
                latency_us,
            ),
            self.sent_bytes // len(self.asked) if self.asked else 0,
        )
