"""One request on its way, and what the prediction log keeps of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from konveyer.core.clock import now_us
from konveyer.core.errors import KonveyerError
from konveyer.execution.serving.contract import AskedRow
from konveyer.execution.serving.prediction_log import LIVE, Prediction, PredictionLog
from konveyer.execution.serving.router import LiveVersion
from konveyer.feature_store.online.codec import Value


@dataclass(slots=True, kw_only=True)
class Call:
    """A request; what becomes known of it on its way is filled in. `started_s` is monotonic."""

    request_id: str
    environment: str
    started_s: float
    caller: str = ""
    version: LiveVersion | None = None
    side: str = LIVE
    asked: Sequence[AskedRow] | None = None

    def log_answer(
        self,
        log: PredictionLog,
        asked: Sequence[AskedRow],
        rows: Sequence[tuple[Value, ...]],
        outputs: Sequence[tuple[Value, ...]],
    ) -> None:
        """Note the features used and the answer of each row."""
        for one, features, answer in zip(asked, rows, outputs, strict=True):
            self._log(log, HTTPStatus.OK, None, one, features, answer)

    def log_failure(self, log: PredictionLog, error: type[KonveyerError]) -> None:
        """Note each row of a request that failed; one without keys when it could not be read."""
        for one in (None,) if self.asked is None else self.asked:
            self._log(log, error.status, error.code, one, None, None)

    def _log(
        self,
        log: PredictionLog,
        status: HTTPStatus,
        error: str | None,
        asked: AskedRow | None,
        features: tuple[Value, ...] | None,
        outputs: tuple[Value, ...] | None,
    ) -> None:
        version = self.version
        if version is None:
            return
        first = outputs[0] if outputs else None
        log.add(
            Prediction(
                request_id=self.request_id,
                at_us=now_us(),
                environment=self.environment,
                application=version.manifest.application,
                api_version=version.manifest.api_version,
                bundle=version.desired.digest,
                release=version.desired.release,
                side=self.side,
                caller=self.caller,
                status=int(status),
                error=error,
                keys=None if asked is None else asked.keys,
                request=None if asked is None else asked.fields,
                given=(),
                fallbacks=(),
                features=features,
                outputs=outputs,
                prediction=float(first) if isinstance(first, int | float) else None,
                latency_us=int((time.perf_counter() - self.started_s) * 1e6),
            )
        )
