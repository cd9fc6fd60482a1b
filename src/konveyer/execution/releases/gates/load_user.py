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

_PLAN = json.loads(Path(os.environ["KONVEYER_LOAD_PLAN"]).read_text())
_PARENT = os.getppid()
_BODIES = itertools.cycle(_PLAN["bodies"])


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def ended(**_: Any) -> None:
    Path("ended").write_text(str(time.time()))


class Caller(FastHttpUser):
    wait_time = constant_throughput(_PLAN["rate_per_user"])

    @task
    def predict(self) -> None:
        if os.getppid() != _PARENT:  # the gate was killed
            self.environment.runner.quit()
        self.client.post(
            _PLAN["path"], json=next(_BODIES), headers=_PLAN["headers"], name="predict"
        )
