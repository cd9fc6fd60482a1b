"""What the load gate sees of a node that stops answering, or answers nothing."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from konveyer.bundle.manifest import Objective
from konveyer.execution.releases.gates.load import generate_load, judge, known_bodies
from konveyer.execution.releases.nodes import NodeAccess
from konveyer.execution.releases.usage import Usage

_ANSWER = b'{"prediction": 1}'
_ANSWERS_FOR_S = 2.0


def test_requests_that_are_never_answered_are_missing_from_the_rate() -> None:
    began: list[float] = []
    ended = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            began.append(time.monotonic())
            if began[-1] > began[0] + _ANSWERS_FOR_S:
                ended.wait(60)
            self.send_response(200)
            self.send_header("content-length", str(len(_ANSWER)))
            self.end_headers()
            self.wfile.write(_ANSWER)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = NodeAccess(f"http://127.0.0.1:{server.server_port}", {})
        profile = generate_load(node, "/predict", [{"client": 1}], rate_per_s=20, seconds=6)
        ended.set()
        server.shutdown()
    usage = Usage()
    assert profile.rate_per_s < 15
    assert not judge(profile, Objective(rate_per_s=20, p99_ms=1000), usage).passed


def test_an_entity_that_a_node_knows_no_more_is_a_failure() -> None:
    known = {1, 2}

    class Forgetting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            is_known = body["client"] in known
            answer = _ANSWER if is_known else b'{"error": {"code": "entity_not_found"}}'
            self.send_response(200 if is_known else 404)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetting) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = NodeAccess(f"http://127.0.0.1:{server.server_port}", {})
        bodies = known_bodies(node, "/predict", [{"client": number} for number in (1, 2, 3)])
        known.remove(2)
        profile = generate_load(node, "/predict", bodies, rate_per_s=20, seconds=5)
        server.shutdown()
    assert bodies == [{"client": 1}, {"client": 2}]
    assert 0 < profile.failures < profile.requests
    assert not judge(profile, Objective(rate_per_s=20, p99_ms=1000), Usage()).passed
