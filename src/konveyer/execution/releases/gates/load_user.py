"""The load generator's user: asks for one known entity after another at a steady rate.

Run by locust in a process of its own, never imported by ours: locust patches the standard library.
"""

import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, stats, task
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment

_PLAN = json.loads(Path(os.environ["KONVEYER_LOAD_PLAN"]).read_text())
_BAD_REQUEST = 400
_PARENT = os.getppid()
_BODIES = itertools.cycle(_PLAN["bodies"])


def _tenth_above(response_time_ms: float) -> float:
    """By which times are counted: what is judged must not look faster than it was.

    Locust rounds to 10 ms from 100 ms on, and to 100 ms from 1 s on.
    """
    return math.ceil(response_time_ms * 10) / 10


stats.bucket_response_time = _tenth_above  # type: ignore[assignment]  # any key of a dict will do


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def ended(environment: Environment, **_: Any) -> None:
    reasons = {str(one.error): one.occurrences for one in environment.stats.errors.values()}
    Path("ended").write_text(json.dumps({"ended_s": time.time(), "reasons": reasons}))


class Caller(FastHttpUser):
    wait_time = constant_throughput(_PLAN["rate_per_user"])

    @task
    def predict(self) -> None:
        if os.getppid() != _PARENT:  # the gate was killed
            self.environment.runner.quit()
        with self.client.post(
            _PLAN["path"],
            json=next(_BODIES),
            headers=_PLAN["headers"],
            name="predict",
            catch_response=True,
        ) as answer:
            if answer.status_code >= _BAD_REQUEST:
                answer.failure(f"{answer.status_code} {_code_of(answer)}".strip())


def _code_of(answer: FastResponse) -> str:
    """What the node calls the error."""
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, TypeError, LookupError):
        return ""
