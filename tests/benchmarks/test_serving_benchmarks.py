"""The serving benchmark measures what it says, and gives no figure of answers that were errors."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from benchmarks.serving.load import LoadFailed, load
from benchmarks.serving.server import free_port, is_answered, post, running
from tests.support import wait_for

JSON = {"content-type": "application/json", "x-api-key": "key"}


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server's URL, and what it was asked: path and body, and the API key, of each request."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append((f"{self.path} {body.decode()}", self.headers["x-api-key"]))
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/predict", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_body_is_posted_in_turn_with_the_headers(tmp_path: Path) -> None:
    bodies = [json.dumps({"client_id": number}) for number in range(3)]
    (tmp_path / "bodies.jsonl").write_text("".join(f"{body}\n" for body in bodies))
    with answering(200) as (url, asked):
        seen = load(url, tmp_path / "bodies.jsonl", JSON, connections=2, seconds=1)
    assert 0 < seen.requests <= len(asked)
    assert {key for _, key in asked} == {"key"}
    assert {body for body, _ in asked} == {f"/predict {body}" for body in bodies}
    assert seen.rate_per_s == pytest.approx(seen.requests, rel=0.3)
    assert 0 < seen.p50_ms <= seen.p99_ms


def test_each_body_is_posted_to_the_next_of_several_paths(tmp_path: Path) -> None:
    (tmp_path / "bodies.jsonl").write_text("".join(f"{number}\n" for number in range(4)))
    with answering(200) as (url, asked):
        bodies = tmp_path / "bodies.jsonl"
        load(url, bodies, JSON, connections=1, seconds=1, paths=("/a", "/b"))
    assert {what for what, _ in asked} == {"/a 0", "/b 1", "/a 2", "/b 3"}


def test_answers_that_are_errors_give_no_figure(tmp_path: Path) -> None:
    (tmp_path / "bodies.jsonl").write_text("{}\n")
    with answering(503) as (url, _), pytest.raises(LoadFailed, match="requests failed"):
        load(url, tmp_path / "bodies.jsonl", JSON, connections=1, seconds=1)


def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_server_is_measured_and_ended_with_all_that_it_started(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import subprocess, sys, http.server as h\n"
        "subprocess.Popen([sys.executable, '-c', 'b = bytes(50_000_000); input()'])\n"
        f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    )
    with running(
        ["python3", "-c", program],
        port=port,
        ready_path="/",
        headers={},
        folder=tmp_path,
        environment={"PATH": "/usr/bin:/usr/local/bin"},
    ) as server:
        assert is_answered(server.url, None, {})
        assert not is_answered(f"{server.url}/nothing", None, {})
        with pytest.raises(OSError, match="501"):
            post(server.url, b"{}", {})
        (other,) = map(psutil.Process, server.processes()[1:])
        assert server.memory_mb() > 10
    wait_for(lambda: has_ended(other))
