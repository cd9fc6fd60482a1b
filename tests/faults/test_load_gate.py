"""What the load gate sees of a node that stops answering, or answers nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from konveyer.bundle.manifest import Objective
from konveyer.execution.releases.gates.load import generate_load, judge, known_bodies
from konveyer.execution.releases.nodes import NodeAccess
from konveyer.execution.releases.usage import Usage

_ANSWER = b'{"prediction": 1}'
_ANSWERS_FOR_S = 2.0


@contextmanager
def node(answer: Callable[[bytes], tuple[int, bytes]]) -> Iterator[NodeAccess]:
    """One whose status and answer to each body are those of `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, body = answer(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield NodeAccess(f"http://127.0.0.1:{server.server_port}", {})
        server.shutdown()


def test_requests_that_are_never_answered_are_missing_from_the_rate() -> None:
    began: list[float] = []
    ended = threading.Event()

    def falls_silent(_: bytes) -> tuple[int, bytes]:
        began.append(time.monotonic())
        if began[-1] > began[0] + _ANSWERS_FOR_S:
            ended.wait(60)
        return 200, _ANSWER

    with node(falls_silent) as access:
        profile = generate_load(access, "/predict", [{"client": 1}], rate_per_s=20, seconds=6)
        ended.set()
    assert profile.rate_per_s < 15
    verdict = judge(profile, Objective(rate_per_s=20, p99_ms=1000), Usage())
    assert not verdict.passed
    assert verdict.limit == "90% of 20 requests/s, p99 1000 ms, 0 failures"


def test_the_rate_grows_and_what_is_asked_meanwhile_is_not_counted() -> None:
    """Of three users; the node, which fails at first, has a thread for each."""
    began_s: dict[int, float] = {}
    asked = 0

    def warms_up(_: bytes) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        now_s = time.monotonic()
        began_s.setdefault(threading.get_ident(), now_s)
        return (503 if now_s < min(began_s.values()) + 0.4 else 200), _ANSWER

    with node(warms_up) as access:
        profile = generate_load(access, "/predict", [{"client": 1}], rate_per_s=30, seconds=6)
    assert len(began_s) == 3
    assert 0.5 < max(began_s.values()) - min(began_s.values()) < 1.6
    assert profile.failures == 0
    assert profile.requests < asked - 4
    assert judge(profile, Objective(rate_per_s=30, p99_ms=1000), Usage()).passed


def test_the_p99_is_not_rounded_to_what_was_promised() -> None:
    def slow(_: bytes) -> tuple[int, bytes]:
        time.sleep(0.1)
        return 200, _ANSWER

    with node(slow) as access:
        profile = generate_load(access, "/predict", [{"client": 1}], rate_per_s=20, seconds=2)
    # Of fewer than a hundred answers it is that of the slowest.
    assert profile.requests < 100
    assert profile.max_ms <= profile.p99_ms <= profile.max_ms + 0.1
    promised = Objective(rate_per_s=1, p99_ms=profile.max_ms - 0.01)
    assert not judge(profile, promised, Usage()).passed


def test_an_entity_that_a_node_knows_no_more_is_a_failure() -> None:
    known = {1, 2}

    def forgets(body: bytes) -> tuple[int, bytes]:
        if json.loads(body)["client"] in known:
            return 200, _ANSWER
        return 404, b'{"error": {"code": "entity_not_found"}}'

    with node(forgets) as access:
        bodies = known_bodies(access, "/predict", [{"client": number} for number in (1, 2, 3)])
        known.remove(2)
        profile = generate_load(access, "/predict", bodies, rate_per_s=20, seconds=5)
    assert bodies == [{"client": 1}, {"client": 2}]
    assert 0 < profile.failures < profile.requests
    verdict = judge(profile, Objective(rate_per_s=20, p99_ms=1000), Usage())
    assert not verdict.passed
    assert verdict.measured.endswith(
        f"{profile.failures} failures, most of them 404 entity_not_found"
    )
    assert list(verdict.evidence["reasons"]) == ["404 entity_not_found"]


def test_a_node_that_hangs_up_is_a_failure_with_its_reason() -> None:
    asked = 0

    def hangs_up(_: bytes) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        if asked % 2:
            raise ConnectionAbortedError
        return 200, _ANSWER

    with node(hangs_up) as access:
        bodies = known_bodies(access, "/predict", [{"client": 1}])
        profile = generate_load(access, "/predict", bodies, rate_per_s=20, seconds=5)
    assert bodies == [{"client": 1}]
    assert profile.failures
    assert all(profile.reasons)
