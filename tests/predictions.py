"""Entries of the prediction log, for tests that only care about some of their fields."""

from typing import Any

from konveyer.execution.serving.prediction_log import Prediction


def prediction(request_id: str = "r", **changes: Any) -> Prediction:
    """One that production answered: `a/v1`, with the keys (1,), said 0.25."""
    values = {
        "request_id": request_id,
        "at_us": 0,
        "environment": "prod",
        "application": "a",
        "api_version": 1,
        "bundle": "sha256:0",
        "release": "r",
        "side": "live",
        "caller": "",
        "status": 200,
        "error": None,
        "keys": (1,),
        "request": (),
        "given": (),
        "fallbacks": (),
        "features": (1.5, None),
        "outputs": (0.25,),
        "prediction": 0.25,
        "latency_us": 10,
    }
    return Prediction(**{**values, **changes})
