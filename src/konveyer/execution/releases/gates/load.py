"""Load: the declared rate is answered within the declared 99th percentile, without an error."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from konveyer.bundle.manifest import Objective
from konveyer.bundle.store import Bundle
from konveyer.core.errors import KonveyerError
from konveyer.execution.releases.environments import TEST
from konveyer.execution.releases.gates.context import GateContext, is_unknown, predict_path
from konveyer.execution.releases.gates.sampled import bodies_of, sampled_entities
from konveyer.execution.releases.nodes import NodeAccess, local_pid
from konveyer.execution.releases.usage import Usage, measured
from konveyer.execution.releases.verdict import Verdict

# The generator's own file of when it ended, and of what went wrong.
ENDED = "ended"
_RULE = "the declared rate is answered within the declared p99, without failures"
_PERCENTILES = (50, 90, 95, 99)
_REASONS_SHOWN = 5
_RATE_OF_A_USER = 10.0
# A user waits for his answer before he asks again, so a generator is always a little behind.
_RATE_REACHED = 0.9
# So much of the time the rate grows, to at most so many seconds; what is counted comes after.
_RAMP_SHARE, _LONGEST_RAMP_S = 0.2, 30.0
# So few requests say nothing of a percentile.
_LOWEST_RATE = 5.0


class LoadGeneratorFailed(KonveyerError):
    """The load generator could not run or saw no answers."""

    code = "load_generator_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProfile:
    """What the generator saw once the rate was whole: requests, failures, rate, milliseconds.

    Percentiles are rounded up to the next tenth of a millisecond.
    `reasons` are the commonest reasons of failures, and how often each was seen.
    """

    requests: int
    failures: int
    rate_per_s: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    reasons: dict[str, int] = field(default_factory=dict)


def load_gate(context: GateContext, bundle: Bundle) -> Verdict:
    bodies = bodies_of(bundle, sampled_entities(bundle))
    storage, path = context.services.storage, predict_path(bundle.manifest)
    with context.on_test(bundle) as node, measured(local_pid(storage, TEST, node.url)) as usage:
        known = known_bodies(node, path, bodies)
        if not known:
            return Verdict(
                passed=False,
                rule=_RULE,
                measured=f"no features are known for any of {len(bodies)} sampled entities",
                limit="entities that can be asked for",
            )
        profile = generate_load(
            node,
            path,
            known,
            rate_per_s=max(bundle.manifest.objective.rate_per_s, _LOWEST_RATE),
            seconds=context.services.load_seconds,
        )
    return judge(profile, bundle.manifest.objective, usage)


def judge(profile: LoadProfile, objective: Objective, usage: Usage) -> Verdict:
    reached = profile.rate_per_s >= objective.rate_per_s * _RATE_REACHED
    return Verdict(
        passed=reached and profile.p99_ms <= objective.p99_ms and not profile.failures,
        rule=_RULE,
        measured=f"{profile.rate_per_s:.3g} requests/s, p99 {profile.p99_ms:g} ms, "
        f"{profile.failures} failures{_commonest(profile)}",
        limit=f"{_RATE_REACHED:.0%} of {objective.rate_per_s:g} requests/s, "
        f"p99 {objective.p99_ms:g} ms, 0 failures",
        evidence=asdict(profile)
        | {
            "node_cores": usage.cores,
            "node_rss_mb": usage.rss_mb,
            "node_processes": usage.processes,
        },
    )


def _commonest(profile: LoadProfile) -> str:
    return f", most of them {next(iter(profile.reasons))}" if profile.reasons else ""


def known_bodies(node: NodeAccess, path: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of entities that the node knows features of: an entity that the model was trained on
    need not have any.
    """
    with node.client() as client:
        return [body for body in bodies if _may_be_known(client, path, body)]


def _may_be_known(client: httpx.Client, path: str, body: dict[str, Any]) -> bool:
    """What gets no answer here is asked under load too, where reasons are counted."""
    try:
        return not is_unknown(client.post(path, json=body))
    except httpx.HTTPError:
        return True


def generate_load(
    node: NodeAccess, path: str, bodies: list[dict[str, Any]], *, rate_per_s: float, seconds: float
) -> LoadProfile:
    """Run locust against `node` for `seconds`: the rate grows to `rate_per_s`, then stays.

    Only what is asked at the whole rate is counted.
    """
    if find_spec("locust") is None:
        raise LoadGeneratorFailed(
            "locust is not installed here.", hint="pip install 'konveyer[execution]'"
        )
    users = max(1, math.ceil(rate_per_s / _RATE_OF_A_USER))
    ramp_s = min(seconds * _RAMP_SHARE, _LONGEST_RAMP_S)
    plan = {
        "path": path,
        "headers": node.headers,
        "bodies": bodies,
        "rate_per_user": rate_per_s / users,
    }
    with tempfile.TemporaryDirectory() as folder:
        plan_file = Path(folder) / "plan.json"
        plan_file.touch(mode=0o600)
        plan_file.write_text(json.dumps(plan))
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-m", "locust", "--headless", "--json"),
                *("--locustfile", str(Path(__file__).with_name("load_user.py"))),
                *("--users", str(users), "--spawn-rate", f"{users / ramp_s:.3f}", "--reset-stats"),
                *("--run-time", f"{seconds:.0f}s", "--host", node.url, "--loglevel", "ERROR"),
            ],
            env={**os.environ, "KONVEYER_LOAD_PLAN": str(plan_file)},
            start_new_session=True,  # Ctrl-C must not cut the measurement short
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60,
        )
        ended = Path(folder) / ENDED
        said = json.loads(ended.read_text()) if ended.exists() else {"ended_s": 0.0, "reasons": {}}
    try:
        (stats,) = json.loads(done.stdout)
        profile = profile_of(stats, **said)
    except (ValueError, TypeError) as error:  # no statistics, or not one answer in them
        raise LoadGeneratorFailed(
            f"locust gave no result: {done.stderr.strip()[-300:]}", hint="run the gate again"
        ) from error
    return profile


def profile_of(stats: dict[str, Any], ended_s: float, reasons: Mapping[str, int]) -> LoadProfile:
    """From locust's statistics of one kind of request, in a run that ended at `ended_s`.

    What is never answered is no request to locust: the rate is that of all the time until the end,
    not of the time until the last answer.

    >>> stats = {"response_times": {"2.1": 98, "7.0": 2}, "num_requests": 100, "num_failures": 0,
    ...          "max_response_time": 7.2, "start_time": 10.0, "last_request_timestamp": 11.0}
    >>> profile = profile_of(stats, 12.0, {})
    >>> profile.p99_ms, profile.rate_per_s
    (7.0, 50.0)
    """
    seconds = max(ended_s, stats["last_request_timestamp"]) - stats["start_time"]
    times = sorted((float(ms), count) for ms, count in stats["response_times"].items())
    total = sum(count for _, count in times)
    found = []
    for percentile in _PERCENTILES:
        seen = 0
        for ms, count in times:
            seen += count
            if seen >= math.ceil(total * percentile / 100):
                found.append(ms)
                break
    p50, p90, p95, p99 = found
    return LoadProfile(
        requests=stats["num_requests"],
        failures=stats["num_failures"],
        rate_per_s=stats["num_requests"] / max(seconds, 1e-3),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=stats["max_response_time"],
        reasons=dict(Counter(reasons).most_common(_REASONS_SHOWN)),
    )
