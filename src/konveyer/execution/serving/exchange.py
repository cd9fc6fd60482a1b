"""What passes between a connection and the gateway: a request as it came, and its reply."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple

from konveyer.core.errors import KonveyerError

JSON = b"application/json"


@dataclass(slots=True)
class Request:
    """A whole request. Of the headers only `WANTED` are kept, with names in lower case.

    `problem` is why the connection or the server refuses it; the gateway turns it into the answer.
    `started_s`, monotonic, is when the server was given it: it may wait to be taken up.
    """

    method: bytes
    url: bytes
    headers: dict[bytes, bytes]
    body: bytes = b""
    problem: KonveyerError | None = None
    started_s: float = 0.0


class Reply(NamedTuple):
    """An answer. `headers` are whole lines, each with its end."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: bytes = b""


# Answers a request, and never raises.
Answer = Callable[[Request], Coroutine[Any, Any, Reply]]

WANTED = frozenset(
    (
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"inference-header-content-length",
        b"transfer-encoding",
        b"x-api-key",
        b"x-request-id",
    )
)
