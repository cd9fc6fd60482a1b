"""Requests at full speed from a number of connections, by wrk."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")


class LoadFailed(Exception):
    """wrk is missing, or a request was not answered with 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk saw, in requests a second and milliseconds."""

    requests: int
    rate_per_s: float
    p50_ms: float
    p99_ms: float


def load(
    url: str,
    bodies: Path,
    headers: Mapping[str, str],
    *,
    connections: int,
    seconds: float,
    paths: Sequence[str] = (),
) -> Load:
    """Post one line of `bodies` after another to `url`; every answer must be a 200.

    With `paths` of the same server each line goes to the next of them instead.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise LoadFailed("wrk is not installed: apt-get install wrk")
    done = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{seconds:g}s", "--timeout", "10s", "--script", str(SCRIPT)),
            *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
            *(url, "--", str(bodies), *paths),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not last or not last[0].startswith("{"):
        raise LoadFailed(f"wrk failed: {done.stdout}{done.stderr}")
    seen = json.loads(last[0])
    if seen["errors"]:
        raise LoadFailed(f"{url}: {seen['errors']} of {seen['requests']} requests failed")
    return Load(
        requests=seen["requests"],
        rate_per_s=seen["requests"] / seen["duration_us"] * 1e6,
        p50_ms=seen["p50_us"] / 1e3,
        p99_ms=seen["p99_us"] / 1e3,
    )
