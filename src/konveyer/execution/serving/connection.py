"""One caller's connection: HTTP/1.1 through httptools, within limits of size.

Requests of one connection are answered in order, one at a time. Limits of time are kept by the
server, which looks at every connection once a second.
"""

import asyncio
import re
from collections import deque
from http import HTTPStatus
from typing import Protocol

import httptools

from konveyer.execution.serving import metrics
from konveyer.execution.serving.errors import BodyTooLarge, HeadTooLarge, Overloaded
from konveyer.execution.serving.exchange import JSON, WANTED, Reply, Request

MOST_HEAD_BYTES = 32_768
MOST_BODY_BYTES = 1_000_000
# So much of a body that is too large is read and thrown away: a caller that is still sending when
# the connection closes sees a reset instead of the answer.
MOST_DRAINED_BYTES = 64_000_000
_MOST_PIPELINED = 16
IDLE, HEAD, BODY, ANSWERING = "idle", "head", "body", "answering"

_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_CLOSE = b"connection: close\r\n"


class Server(Protocol):
    """What a connection needs of the server that it belongs to."""

    turn_s: float
    draining: bool

    def hold(self, size: int) -> bool: ...
    def let_go(self, size: int) -> None: ...
    def opened(self, connection: "Connection") -> None: ...
    def closed(self, connection: "Connection") -> None: ...
    def submit(self, connection: "Connection", request: Request) -> None: ...


class Connection(asyncio.Protocol):
    """`stage` and `since_s` tell what the connection has been at since when."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._pipelined: deque[Request] = deque()
        self._parts: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._head_bytes = self._announced_bytes = self._received_bytes = 0
        self._unfinished_bytes = 0  # read since a request began, or since a part of its body
        self._held_bytes = 0  # of bodies, until their requests are answered
        self._is_paused = self._is_ending = self._has_head = self._lacks_room = False
        self._is_held = False  # a request that has come waits until the answers before it are read
        self.stage, self.since_s = IDLE, server.turn_s
        self._coming = IDLE  # what of the next request has come while one is answered
        self.choked_since_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # of TCP, which can be written to
        self._server.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._pipelined.clear()
        self._let_go(self._held_bytes)
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        self._unfinished_bytes += len(data)
        while data and not self._is_ending:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._is_ending = not self._has_body_to_come
                data = self._without_offer(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                if not self._is_ending:
                    self.refuse(HTTPStatus.BAD_REQUEST, "bad_http", "This is not HTTP/1.1.")
                return
            else:
                # The parser keeps what has no end yet; `on_message_complete` never sees it.
                if self._unfinished_bytes > MOST_HEAD_BYTES and self._coming is not IDLE:
                    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                    self.refuse(status, HeadTooLarge.code, _LONG_HEAD)
                return

    def pause_writing(self) -> None:
        """The caller does not read: it gets no further answers, so nothing is read of it either."""
        self.choked_since_s = self._server.turn_s
        self._pause_reading()

    def resume_writing(self) -> None:
        self.choked_since_s = None
        self.since_s = self._server.turn_s  # it could not send meanwhile
        if self._is_held:
            self._is_held = False
            self._take_next()
        else:
            self._resume_reading()

    # What httptools calls.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._parts = b"", {}, []
        self._head_bytes = self._announced_bytes = self._received_bytes = 0
        self._unfinished_bytes = 0
        self._has_head, self._lacks_room, self._coming = False, False, HEAD
        if self.stage is IDLE:
            self.stage, self.since_s = HEAD, self._server.turn_s

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        name = name.lower()
        # What follows a chunked body is no header: who checked those on the way did not see it.
        if name in WANTED and not self._has_head:
            self._headers[name] = value.rstrip(b" \t")  # RFC 9110, section 5.5; the parser keeps it

    def on_headers_complete(self) -> None:
        self._has_head, self._coming = True, BODY
        if self.stage is HEAD:
            self.stage, self.since_s = BODY, self._server.turn_s
        announced = self._headers.get(b"content-length", b"0")
        if announced.isdigit() and len(announced) < 20:
            self._announced_bytes = int(announced)
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._go_on()

    def on_body(self, body: bytes) -> None:
        self._received_bytes += len(body)
        self._unfinished_bytes = 0
        if not self._is_too_large and not self._lacks_room:
            if self._hold(len(body)):
                self._parts.append(body)
                return
            self._lacks_room = True
        self._let_go(sum(map(len, self._parts)))
        self._parts.clear()
        if self._received_bytes > MOST_DRAINED_BYTES and not self._is_ending:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", _TOO_LARGE)

    def on_message_complete(self) -> None:
        if self._is_ending:
            return
        parser = self._parser
        if parser.should_upgrade() and self._has_body_to_come:
            return  # the parser takes the body for another protocol: see `_without_offer`
        self._coming = IDLE
        request = Request(parser.get_method(), _path(self._url), self._headers)
        if self._parts:
            request.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._head_bytes > MOST_HEAD_BYTES:
            request.problem = HeadTooLarge(_LONG_HEAD, hint="send fewer headers")
        elif self._is_too_large:
            request.problem = BodyTooLarge(_TOO_LARGE, hint="send fewer rows at a time")
        elif self._lacks_room:
            request.problem = Overloaded(
                "This process has no room for the body.",
                hint="send it again after the seconds in Retry-After",
            )
        if not parser.should_keep_alive() or parser.get_http_version() == "1.0":
            self._is_ending = True
        if self.stage is ANSWERING:
            self._pipelined.append(request)
            if len(self._pipelined) >= _MOST_PIPELINED:
                self._pause_reading()
            return
        self._submit(request)

    # What the server calls.

    def reply(self, request: Request, reply: Reply) -> None:
        """Send the answer to the request that was submitted last, and go on with the next."""
        self._let_go(len(request.body))
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        keep = bool(self._pipelined) or not (self._is_ending or self._server.draining)
        body = b"" if request.method == b"HEAD" else reply.body
        transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b"
            % (
                _LINES[reply.status],
                reply.content_type,
                len(reply.body),
                reply.headers,
                b"" if keep else _CLOSE,
                body,
            )
        )
        if self._pipelined:
            self._is_held = self.choked_since_s is not None
            if not self._is_held:
                self._take_next()
            return
        self.stage, self.since_s = self._coming, self._server.turn_s
        if not keep:
            self._is_ending = True
            transport.close()

    def refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        """Answer what is no request, or none yet, and close; requests before it come first."""
        self._is_ending = True
        if self.stage is ANSWERING:
            return
        body = b'{"error":{"code":"%b","message":"%b"}}' % (code.encode(), message.encode())
        if self._transport is not None and not self._transport.is_closing():
            metrics.REFUSED.labels(code).inc()
            self._transport.write(
                b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
                % (_LINES[status], JSON, len(body), _CLOSE, body)
            )
            self._transport.close()

    def close(self) -> None:
        """Close without an answer."""
        self._is_ending = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting for a caller that does not read."""
        if self._transport is not None:
            self._transport.abort()

    def _hold(self, size: int) -> bool:
        has_room = self._server.hold(size)
        if has_room:
            self._held_bytes += size
        return has_room

    def _let_go(self, size: int) -> None:
        """No more than is held: a connection that is lost has let go of all."""
        size = min(size, self._held_bytes)
        self._held_bytes -= size
        self._server.let_go(size)

    @property
    def _is_too_large(self) -> bool:
        return max(self._announced_bytes, self._received_bytes) > MOST_BODY_BYTES

    @property
    def _has_body_to_come(self) -> bool:
        """Of a request that offers another protocol; CONNECT, which has no body, always does."""
        has_body = bool(self._announced_bytes) or b"transfer-encoding" in self._headers
        return has_body and self._parser.get_method() != b"CONNECT"

    def _without_offer(self, body: bytes) -> bytes:
        """The request of a caller that offers another protocol, as one that does not: its body is
        still to come. Java's client offers HTTP/2 with its first request.
        """
        head = b"%b %b HTTP/1.1\r\n" % (self._parser.get_method(), self._url)
        for header in self._headers.items():
            if header[0] != b"expect":  # it was told to go on
                head += b"%b: %b\r\n" % header
        self._parser = httptools.HttpRequestParser(self)
        return head + b"\r\n" + body

    def _pause_reading(self) -> None:
        transport = self._transport
        if transport is not None and not self._is_paused and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()

    def _resume_reading(self) -> None:
        """Unless enough requests wait: one read can bring thousands of them."""
        transport = self._transport
        if transport is None or not self._is_paused or transport.is_closing():
            return
        if len(self._pipelined) < _MOST_PIPELINED:
            self._is_paused = False
            transport.resume_reading()

    def _take_next(self) -> None:
        request = self._pipelined.popleft()
        self._resume_reading()
        self._submit(request)

    def _submit(self, request: Request) -> None:
        self.stage, self.since_s = ANSWERING, self._server.turn_s
        self._server.submit(self, request)

    def _go_on(self) -> None:
        if self._is_too_large:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", _TOO_LARGE)
        elif self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _path(target: bytes) -> bytes:
    """Of a target in absolute form, which some proxies send (RFC 9112, section 3.2.2), the path."""
    if target.startswith(b"/"):
        return target
    return _ORIGIN.sub(b"", target) or b"/"


_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_LONG_HEAD = f"The head is larger than {MOST_HEAD_BYTES:,} bytes."
_TOO_LARGE = f"The body is larger than {MOST_BODY_BYTES:,} bytes."
