"""Finding a node of an environment, or starting one for as long as it is needed."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from konveyer.core.errors import KonveyerError
from konveyer.core.storage import Storage
from konveyer.execution.serving.presence import Presence, nodes_of

START_WITHIN_S = 30.0
FOLLOW_WITHIN_S = 15.0


class NodeMissing(KonveyerError):
    """No node came up, or none took up the version that it should serve."""

    code = "node_missing"


class NodeAccess(NamedTuple):
    """Where a node answers, and the headers with which it lets gates in."""

    url: str
    headers: dict[str, str]


@contextmanager
def node_of(storage: Storage, environment: str, start: Sequence[str], logs: Path) -> Iterator[str]:
    """The URL of a running node; when none runs, one is started with `start` and stopped after."""
    running = nodes_of(storage, environment)
    if running:
        yield running[0].url
        return
    log = logs / f"{environment}-for-gates.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("ab") as output,
        # In a session of its own, Ctrl-C does not stop it under a gate's eyes.
        subprocess.Popen(start, stdout=output, stderr=output, start_new_session=True) as process,
    ):
        try:
            yield _wait_for(storage, environment, process, log)
        finally:
            process.terminate()


def _wait_for(
    storage: Storage, environment: str, process: "subprocess.Popen[bytes]", log: Path
) -> str:
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        running = nodes_of(storage, environment)
        if running:
            return running[0].url
        time.sleep(0.05)
    raise NodeMissing(f"No node of '{environment}' came up.", hint=f"read {log}")


def local_pid(storage: Storage, environment: str, url: str) -> int | None:
    """The process of the node at `url`; None when it runs on another machine."""
    here = socket.gethostname()
    nodes = nodes_of(storage, environment)
    return next((node.pid for node in nodes if (node.url, node.host) == (url, here)), None)


def wait_until_all_serve(
    storage: Storage, environment: str, application: str, api_version: int, digest: str
) -> list[Presence]:
    """The nodes that are up, on any machine, once each says that it serves this bundle.

    Raises with the reason of one that does not. A node that goes is not waited for, one that comes
    is. One that went without a word is waited for until it is taken to be gone.
    """
    deadline = time.monotonic() + FOLLOW_WITHIN_S
    while True:
        nodes = nodes_of(storage, environment)
        behind = [node for node in nodes if not node.serves(application, api_version, digest)]
        if not behind:
            return nodes
        late = [node for node in behind if node.is_heard]
        if time.monotonic() > deadline and late:
            node = late[0]
            reason = node.refusal(application, api_version, digest) or "it has not said why"
            raise NodeMissing(
                f"The node at {node.url} did not take up bundle {digest}: {reason}",
                hint="read state/logs on its machine",
            )
        time.sleep(0.1)


def wait_until_serving(node: NodeAccess, application: str, api_version: int, digest: str) -> None:
    """Return once the node answers for this bundle, and to this key; raise with its reason
    otherwise.
    """
    deadline = time.monotonic() + FOLLOW_WITHIN_S
    wanted = {"application": application, "api_version": api_version, "bundle": digest}
    seen = "nothing"
    with httpx.Client(base_url=node.url, headers=node.headers, timeout=5.0) as client:
        while time.monotonic() < deadline:
            try:
                ready = client.get("/health/ready").json()
                contract = client.get(f"/{application}/v{api_version}")
                serves = any(wanted.items() <= one.items() for one in ready["versions"])
                if serves and contract.is_success and contract.json()["bundle"] == digest:
                    return
                seen = ready["refused"].get(f"{application}/v{api_version}", contract.text)
            except httpx.HTTPError as error:
                seen = str(error)
            time.sleep(0.1)
    raise NodeMissing(
        f"The node at {node.url} did not take up bundle {digest}: {seen}", hint="read state/logs"
    )
