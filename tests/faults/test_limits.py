"""Callers that are too many, too slow, too large, or only wait."""

import asyncio
import contextlib
import resource
import select
import socket
import time
from collections.abc import Callable

import httpx
import pytest
import uvloop

from konveyer.core.sockets import listening
from konveyer.execution.serving.exchange import Reply, Request
from konveyer.execution.serving.server import Limits, Server
from tests.faults.conftest import OPEN
from tests.serving_nodes import Load, Node, serving
from tests.serving_space import ServingSpace, new_space
from tests.support import wait_for

PATH = "/scoring/v1/predict"
IDLE = 10_000


def connected(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=20)


def predicts(client: httpx.Client) -> bool:
    return client.post(PATH, json={"client_id": 1}).status_code == 200


def test_ten_thousand_idle_connections_leave_a_node_answering(space: ServingSpace) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 500:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with (
            serving(space, processes=2) as node,
            node.client() as client,
            contextlib.ExitStack() as stack,
        ):
            for number in range(IDLE):
                stack.enter_context(connected(node))
                if number % 1000 == 0:
                    assert predicts(client)
            wait_for(lambda: sum(one.num_fds() for one in node.processes()) >= IDLE)
            began = time.monotonic()
            for _ in range(100):
                assert predicts(client)
            assert (time.monotonic() - began) / 100 < 0.1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_loris_is_cut_off_and_others_are_answered(space: ServingSpace) -> None:
    with serving(space, processes=1) as node, node.client() as client:
        slow = [connected(node) for _ in range(50)]
        for one in slow:
            one.sendall(b"POST /scoring/v1/predict HTTP/1.1\r\nhost: x\r\n")
        began = time.monotonic()
        answers: list[bytes] = []
        while len(answers) < len(slow) and time.monotonic() < began + 40:
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b"x-a: b\r\n")
            assert predicts(client)
            time.sleep(0.5)
            for one in slow:
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    answers += [one.recv(1000)]
                one.setblocking(True)
        assert time.monotonic() - began < 20
        assert all(b" 408 " in answer for answer in answers if answer)
        assert any(answer for answer in answers)
        for one in slow:
            one.close()


@pytest.mark.slow  # half a minute of waiting
def test_a_body_that_trickles_is_cut_off(space: ServingSpace) -> None:
    with serving(space, processes=1) as node, node.client() as client:
        with connected(node) as one:
            head = b"POST /scoring/v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
            one.sendall(head)
            one.settimeout(45)
            assert b" 408 " in one.recv(1000)
        assert predicts(client)


@pytest.mark.slow
def test_large_requests_keep_nobody_from_a_process(space: ServingSpace) -> None:
    """Fifty callers ask for a thousand rows each, again and again."""
    rows = b",".join(b'{"client_id": %d}' % client for client in range(1000))
    with (
        serving(space, processes=1) as node,
        Load(node.url, connections=50, bodies=[b'{"rows": [%b]}' % rows]) as load,
    ):
        for _ in range(5):
            began = time.monotonic()
            with node.client() as new:
                assert new.get("/health/live").is_success
            # A tenth of a second on a machine that does nothing else; half a minute without turns.
            assert time.monotonic() - began < 10
    assert load.statuses == {200}
    assert load.broken == []


POST = b"POST /scoring/v1/predict HTTP/1.1\r\n"


@pytest.mark.slow
def test_a_head_that_trickles_behind_another_request_is_cut_off(space: ServingSpace) -> None:
    with serving(space, processes=1) as node, connected(node) as one:
        one.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n" + POST)
        one.settimeout(30)
        answers = b""
        while part := one.recv(1000):
            answers += part
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answers


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (POST + b"content-length: x\r\n\r\n", 400),
        (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nx-a: " + b"b" * 40_000 + b"\r\n\r\n", 431),
        (POST + b"expect: 100-continue\r\ncontent-length: 2000000\r\n\r\n", 413),
        (POST + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", 415),
        (POST + b"content-encoding: identity\r\ncontent-length: 1\r\n\r\nx", 400),
        (POST + b"content-encoding: identity \t\r\ncontent-length: 1\r\n\r\nx", 400),
        (b"GET /scoring/v01 HTTP/1.1\r\nhost: x\r\n\r\n", 404),
        (b"CONNECT x:1 HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 404),
    ],
)
def test_what_is_no_request_gets_a_4xx(made_node: Node, sent: bytes, status: int) -> None:
    with connected(made_node) as one:
        one.sendall(sent)
        assert one.recv(1000).startswith(f"HTTP/1.1 {status} ".encode())


def refused(node: Node, code: str) -> float:
    with node.client() as client:
        lines = client.get("/metrics").text.splitlines()
    name = f'konveyer_requests_refused_total{{code="{code}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"nonsense\r\n\r\n", "bad_http"),
        (POST + b"expect: 100-continue\r\ncontent-length: 2000000\r\n\r\n", "body_too_large"),
    ],
)
def test_what_is_refused_before_it_is_a_request_is_counted(
    made_node: Node, sent: bytes, code: str
) -> None:
    before = refused(made_node, code)
    with connected(made_node) as one:
        one.sendall(sent)
        assert code.encode() in one.recv(1000)
    assert refused(made_node, code) == before + 1


CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx-a: ",
        b"GET /health/live HTTP/1.1\r\n\r\nGET /",
        CHUNKED + b"1\r\n{\r\n0\r\nx-a: ",
        CHUNKED + b"1;a=",
    ],
)
def test_a_head_without_an_end_is_cut_off(made_node: Node, begun: bytes) -> None:
    with connected(made_node) as one:
        one.sendall(begun)
        if begun.count(b"GET /") == 2:
            assert one.recv(1000).startswith(b"HTTP/1.1 200 ")
        sent = 0
        while sent < 1_000_000 and not select.select([one], [], [], 0.02)[0]:
            one.sendall(b"a" * 10_000)
            sent += 10_000
        assert sent <= 100_000
        assert one.recv(1000).startswith(b"HTTP/1.1 431 ")
        assert one.recv(1000) == b""


def test_requests_that_are_sent_together_are_answered_in_order(made_node: Node) -> None:
    body = b'{"client_id": 1}'
    with connected(made_node) as one:
        for number in range(40):
            one.sendall(
                b"POST /scoring/v1/predict HTTP/1.1\r\nhost: x\r\nx-request-id: n-%d\r\n"
                b"content-length: %d\r\n\r\n%b" % (number, len(body), body)
            )
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 40 or not got.endswith(b"}"):
            got += one.recv(100_000)
    ids = [line.split(b": ")[1] for line in got.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert ids == [b"n-%d" % number for number in range(40)]


def test_a_caller_that_never_reads_the_last_of_its_answers_is_cut_off() -> None:
    """So little is left that the process would have written more."""
    open_at_once: list[int] = []

    async def answer(_: Request) -> Reply:
        open_at_once.append(server.connected)
        return Reply(200, bytes(10_000))

    async def ask() -> None:
        stop = asyncio.Event()
        listener = listening("127.0.0.1", 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(listener.getsockname())
            caller.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5)
            serving = asyncio.create_task(server.serve(listener, stop, 1.0))
            await asyncio.to_thread(
                wait_for, lambda: len(open_at_once) == 5 and not server.connected
            )
            stop.set()
            await serving

    server = Server(answer, Limits(idle_s=1.0))
    uvloop.run(ask())
    assert open_at_once == [1] * 5


def over_small_buffers(server: Server, ask: Callable[[socket.socket], None]) -> None:
    """Let `ask` use a connection to the server of which the system holds little."""

    async def serve() -> None:
        stop, listener = asyncio.Event(), listening("127.0.0.1", 0)
        with socket.socket() as caller:
            for one in (listener, caller):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(listener.getsockname())
            serving = asyncio.create_task(server.serve(listener, stop, 1.0))
            try:
                await asyncio.to_thread(ask, caller)
            finally:
                stop.set()
                await serving

    uvloop.run(serve())


GET = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"


def test_a_caller_gets_further_answers_when_it_has_read_those_before() -> None:
    taken_up: list[bytes] = []

    async def answer(request: Request) -> Reply:
        taken_up.append(request.url)
        return Reply(200, bytes(10_000))

    def ask(caller: socket.socket) -> None:
        caller.sendall(GET * 100)
        wait_for(lambda: len(taken_up) > 5)
        time.sleep(0.2)
        assert len(taken_up) < 30
        caller.settimeout(10)
        got = b""
        while got.count(b"HTTP/1.1 200 ") < 100 or not got.endswith(bytes(10_000)):
            got += caller.recv(100_000)
        caller.sendall(GET)
        assert caller.recv(1000).startswith(b"HTTP/1.1 200 ")

    over_small_buffers(Server(answer, Limits()), ask)
    assert len(taken_up) == 101


@pytest.mark.parametrize("reads", [True, False])
def test_requests_that_are_sent_on_and_on_do_not_pile_up(reads: bool) -> None:
    """Not even of a caller that reads; one that does not is cut off, however much it sends."""
    taken_up: list[bytes] = []

    async def answer(request: Request) -> Reply:
        taken_up.append(request.url)
        await asyncio.sleep(0.01)
        return Reply(200, bytes(10_000))

    def ask(caller: socket.socket) -> None:
        requests, sent = GET * 100_000, 0
        caller.setblocking(False)
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s and (server.connected or not taken_up):
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sent += caller.send(requests[sent : sent + 10_000])
            if reads:
                with contextlib.suppress(BlockingIOError):
                    caller.recv(100_000)
                if len(taken_up) > 100:
                    break
            time.sleep(0.001)
        assert sent / len(GET) - len(taken_up) < 1000
        assert reads or not server.connected

    server = Server(answer, Limits(choked_s=1.0))
    over_small_buffers(server, ask)


def test_bodies_take_no_more_memory_than_a_process_has_for_them() -> None:
    """Also of callers that never send the end, and of those that are gone."""
    problems: list[object] = []

    async def answer(request: Request) -> Reply:
        problems.append(request.problem and request.problem.code)
        return Reply(200, b"%d" % len(request.body))

    def sent(address: object, length: int, body: bytes) -> socket.socket:
        caller = socket.create_connection(address, timeout=20)  # type: ignore[arg-type]
        caller.sendall(POST + b"content-length: %d\r\n\r\n%b" % (length, body))
        return caller

    def ask(address: object) -> None:
        def answered(length: int) -> bytes:
            with sent(address, length, bytes(length)) as caller:
                return caller.recv(1000).rpartition(b"\r\n")[2]

        for _ in range(3):  # what was answered is held no more
            assert answered(700_000) == b"700000"
        with sent(address, 800_000, bytes(799_999)) as unfinished:
            wait_for(lambda: answered(300_000) == b"0")
            assert answered(100_000) == b"100000"
            unfinished.sendall(b"0")
            assert unfinished.recv(1000).endswith(b"800000")
        sent(address, 800_000, bytes(799_999)).close()
        wait_for(lambda: answered(700_000) == b"700000")

    async def serve() -> None:
        stop, listener = asyncio.Event(), listening("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve(listener, stop, 1.0))
        try:
            await asyncio.to_thread(ask, listener.getsockname())
        finally:
            stop.set()
            await serving

    server = Server(answer, Limits(most_body_bytes=1_000_000))
    uvloop.run(serve())
    assert {*problems} == {None, "overloaded"}


def test_what_follows_a_chunked_body_is_no_header(made_node: Node) -> None:
    chunked = POST + b"transfer-encoding: chunked\r\n"
    body = b'\r\n10\r\n{"client_id": 1}\r\n0\r\n'
    wrong = b"x-api-key: nobody's\r\n"
    for sent, status in ((chunked + wrong + body, b" 401 "), (chunked + body + wrong, b" 200 ")):
        with connected(made_node) as one:
            one.sendall(sent + b"\r\n")
            assert status in one.recv(1000)


def test_http_1_0_head_and_100_continue(made_node: Node) -> None:
    with connected(made_node) as one:
        one.sendall(b"GET /health/live HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer = b""
        while part := one.recv(1000):  # it is closed after the answer
            answer += part
        assert b"connection: close" in answer
        assert answer.endswith(b'{"status":"alive"}')
    with made_node.client() as client:
        head = client.head("/health/live")
        assert (head.status_code, head.text, head.headers["content-length"]) == (200, "", "18")
    with connected(made_node) as one:
        one.sendall(POST + b"expect: 100-continue\r\ncontent-length: 16\r\n\r\n")
        assert one.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.sendall(b'{"client_id": 1}')
        assert b" 200 OK" in one.recv(1000)
    with connected(made_node) as one:  # as some proxies ask
        one.sendall(b"GET HTTP://x.bank/health/live?a=b HTTP/1.1\r\nhost: x.bank\r\n\r\n")
        assert b" 200 OK" in one.recv(1000)
    with connected(made_node) as one:  # as Java's client begins
        offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMA\r\n"
        for body in (b'{"client_id": 1}', b'{"client_id":'):
            one.sendall(POST + offer + b"content-length: 16\r\n\r\n" + body)
            time.sleep(0.05)
            one.sendall(b'{"client_id": 1}'[len(body) :])
            assert b" 200 OK" in one.recv(1000)


def test_more_than_a_process_takes_is_refused_at_once(space: ServingSpace) -> None:
    """Of what arrives together, the rest gets 429 and is told when to come again."""
    few = new_space(space.root.parent / "few", f"{OPEN}most_under_way = 8\nprocesses = 1\n")
    few.publish(200)
    few.desire(few.pack(1))
    with serving(few, processes=1) as node:
        (process,) = node.processes()
        body = b'{"client_id": 1}'
        request = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
            PATH.encode(),
            len(body),
            body,
        )
        # Applications that are called like other pages are no such pages.
        other = request.replace(PATH.encode(), b"/metrics-forecast/v1/predict")
        callers = [connected(node) for _ in range(64)]
        others = [connected(node) for _ in range(16)]
        last = connected(node)
        wait_for(lambda: process.num_fds() > 81)
        process.suspend()  # so that all of it has arrived when the process looks
        for one in callers:
            one.sendall(request)
        for one in others:
            one.sendall(other)
        last.sendall(b"GET /health/live?a=b HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.2)
        process.resume()
        answers = [one.recv(2000) for one in callers]
        assert any(b" 429 " in one.recv(2000) for one in others)
        assert b" 200 OK" in last.recv(1000)
        for one in (*callers, *others, last):
            one.close()
        refused = [answer for answer in answers if b" 429 " in answer]
        assert len(refused) >= 32
        assert all(b"retry-after: 1" in answer for answer in refused)
        assert all(b" 200 " in answer for answer in answers if answer not in refused)
        assert any(b" 200 " in answer for answer in answers)
        with Load(node.url, connections=4) as load:
            load.more(100)
        assert load.statuses == {200}
