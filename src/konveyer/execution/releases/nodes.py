"""Finding a node of an environment, or starting one for as long as it is needed."""

import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from konveyer.core.errors import KonveyerError
from konveyer.core.storage import Storage
from konveyer.execution.serving.presence import Presence, nodes_of

START_WITHIN_S = 30.0
FOLLOW_WITHIN_S = 15.0
ANSWER_WITHIN_S = 10.0
_MOST_SILENT = 3
# An environment is built from a package index: minutes, where a disk has none of it yet.
PREPARE_WITHIN_S = 300.0


class NodeMissing(KonveyerError):
    """No node came up, or none took up the version that it should serve."""

    code = "node_missing"


class Patience:
    """How long a node is waited for: a while, which begins anew while it is preparing."""

    def __init__(self) -> None:
        self._began_s = self._since_s = time.monotonic()

    def is_over(self, *, is_preparing: bool) -> bool:
        now_s = time.monotonic()
        if is_preparing and now_s - self._began_s < PREPARE_WITHIN_S:
            self._since_s = now_s
        return now_s - self._since_s >= FOLLOW_WITHIN_S


class NodeAccess(NamedTuple):
    """Where a node answers, the headers with which it lets gates in, and how long it may take."""

    url: str
    headers: dict[str, str]
    within_s: float = ANSWER_WITHIN_S

    def client(self) -> httpx.Client:
        return _Client(base_url=self.url, headers=self.headers, timeout=self.within_s)


class _Client(httpx.Client):
    """Waits for no more answers where several in a row did not come."""

    _silent = 0

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if self._silent >= _MOST_SILENT:
            raise httpx.ReadTimeout(f"not asked, for {_MOST_SILENT} before had none")
        try:
            response = super().send(request, **options)
        except httpx.HTTPError:
            self._silent += 1
            raise
        self._silent = 0
        return response


def no_answer(error: httpx.HTTPError) -> str:
    """What is wrong with a row of a request that a node did not answer."""
    return f"the node gave no answer ({type(error).__name__}: {error})"


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
    is. One that went without a word is waited for until it is taken to be gone, and one that is
    preparing the model until it is done.
    """
    patience: defaultdict[str, Patience] = defaultdict(Patience)
    while True:
        nodes = nodes_of(storage, environment)
        behind = [node for node in nodes if not node.serves(application, api_version, digest)]
        if not behind:
            return nodes
        for node in behind:
            refused = node.refusal(application, api_version, digest)
            is_preparing = refused is not None and refused.is_preparing
            if patience[node.url].is_over(is_preparing=is_preparing) and node.is_heard:
                reason = "it has not said why" if refused is None else refused.reason
                raise NodeMissing(
                    f"The node at {node.url} did not take up bundle {digest}: {reason}",
                    hint="read state/logs on its machine",
                )
        time.sleep(0.1)


def wait_until_serving(node: NodeAccess, application: str, api_version: int, digest: str) -> None:
    """Return once the node answers for this bundle, and to this key; raise with its reason
    otherwise. One that is preparing the model is waited for.
    """
    patience, is_preparing = Patience(), False
    route = f"{application}/v{api_version}"
    wanted = {"application": application, "api_version": api_version, "bundle": digest}
    seen = "nothing"
    with httpx.Client(base_url=node.url, headers=node.headers, timeout=5.0) as client:
        while not patience.is_over(is_preparing=is_preparing):
            try:
                ready = client.get("/health/ready").json()
                contract = client.get(f"/{route}")
                serves = any(wanted.items() <= one.items() for one in ready["versions"])
                if serves and contract.is_success and contract.json()["bundle"] == digest:
                    return
                seen = ready["refused"].get(route, contract.text)
                is_preparing = route in ready.get("preparing", ())
            except httpx.HTTPError as error:
                seen, is_preparing = str(error), False
            time.sleep(0.1)
    raise NodeMissing(
        f"The node at {node.url} did not take up bundle {digest}: {seen}", hint="read state/logs"
    )
