"""What Prometheus reads of a node."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "konveyer_requests", "Answered requests", ["application", "api_version", "status"]
)
LATENCY = Histogram(
    "konveyer_request_seconds",
    "From the first byte of a request to the last of its answer",
    ["application", "api_version"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
PREDICTIONS = Counter("konveyer_predictions", "Rows predicted", ["application", "api_version"])
STORAGE_UP = Gauge("konveyer_shared_storage_up", "Whether shared storage answered when last asked")
LIVE = Gauge("konveyer_live_versions", "Versions that this node serves")
