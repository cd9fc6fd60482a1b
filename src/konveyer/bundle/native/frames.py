"""Messages between a node and a worker: 4 bytes with the length, big-endian, then JSON."""

import json
import struct
from typing import Any

_LENGTH = struct.Struct(">I")
MOST_BYTES = 64_000_000


class BadFrame(Exception):
    """The other side says what is no message."""


def framed(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def encoded(message: dict[str, Any]) -> bytes:
    """Raises `ValueError` for what JSON has no word for, half a surrogate pair too."""
    text = json.dumps(message, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return framed(text.encode())


def taken(buffer: bytearray) -> list[bytes]:
    """The whole messages at the start of `buffer`, which are removed from it."""
    bodies, start = [], 0
    while len(buffer) - start >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer, start)
        if length > MOST_BYTES:
            raise BadFrame
        end = start + _LENGTH.size + length
        if len(buffer) < end:
            break
        bodies.append(bytes(buffer[start + _LENGTH.size : end]))
        start = end
    del buffer[:start]
    return bodies
