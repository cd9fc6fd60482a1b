"""Content digests: `sha256:` and 64 hex digits."""

import hashlib
from pathlib import Path

import msgspec

_canonical = msgspec.json.Encoder(order="sorted")


def digest_bytes(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_value(value: object) -> str:
    """Of the canonical JSON (keys sorted, no spaces): equal values have equal digests.

    >>> digest_value({"a": 1, "b": 2}) == digest_value({"b": 2, "a": 1})
    True
    """
    return digest_bytes(_canonical.encode(value))


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def short(digest: str) -> str:
    """The first 12 hex digits: enough to name a version in a path or a table.

    >>> short("sha256:0123456789abcdef")
    '0123456789ab'
    """
    return digest.removeprefix("sha256:")[:12]
