"""What Prometheus reads of a node. Counts are added up over the processes of a node."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import REGISTRY

REQUESTS = Counter(
    "konveyer_requests", "Answered requests", ["application", "api_version", "side", "status"]
)
LATENCY = Histogram(
    "konveyer_request_seconds",
    "From the last byte of a request until its answer is made",
    ["application", "api_version", "side"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
PREDICTIONS = Counter(
    "konveyer_predictions", "Rows predicted", ["application", "api_version", "side"]
)
REFUSED = Counter("konveyer_requests_refused", "Requests that no version was asked", ["code"])
SHADOWS_DROPPED = Counter(
    "konveyer_shadows_dropped",
    "Copies of requests that a busy node did not make",
    ["application", "api_version"],
)
LOG_LOST = Counter(
    "konveyer_prediction_log_lost", "Rows dropped because the prediction log was full"
)
STORAGE_UP = Gauge(
    "konveyer_shared_storage_up",
    "Whether shared storage answered when last asked",
    multiprocess_mode="livemostrecent",
)
LIVE = Gauge(
    "konveyer_live_versions",
    "Versions that a process of the node serves",
    multiprocess_mode="livemax",
)

OK = 200


class Meter:
    """The metrics of one side of one version, found once."""

    def __init__(self, application: str, api_version: int, side: str) -> None:
        self._labels = (application, str(api_version), side)
        self._ok = REQUESTS.labels(*self._labels, str(OK))
        self._latency = LATENCY.labels(*self._labels)
        self._predictions = PREDICTIONS.labels(*self._labels)
        self.shadows_dropped = SHADOWS_DROPPED.labels(*self._labels[:2])

    def answered(self, status: int, seconds: float, rows: int) -> None:
        if status == OK:
            self._ok.inc()
            self._predictions.inc(rows)
        else:
            REQUESTS.labels(*self._labels, str(status)).inc()
        self._latency.observe(seconds)


def exposition(folder: str | None) -> bytes:
    """The text that Prometheus reads, over all processes that keep their counts in `folder`.

    Of this process alone when None.
    """
    if folder is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
