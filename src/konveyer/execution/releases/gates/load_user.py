"""The load generator's user: asks for one known entity after another at a steady rate.

Run by locust in a process of its own, never imported by ours: locust patches the standard library.
"""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment

_PLAN = json.loads(Path(os.environ["KONVEYER_LOAD_PLAN"]).read_text())
_BAD_REQUEST = 400
_PARENT = os.getppid()
_BODIES = itertools.cycle(_PLAN["bodies"])


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
