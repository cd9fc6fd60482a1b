"""Which of the releases at one URL answers a request, and which others see a copy of it."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

WHOLE = 1000


def place_of(release: str, keys: Sequence[Any]) -> int:
    """Where an entity stands among a thousand, for one release: the same on every node, each time.

    An entity below the release's share gets it. Each release shuffles anew, so that the same few
    clients are not the first to meet every canary.

    >>> place_of("rel-1", (7,)) == place_of("rel-1", (7,)) != place_of("rel-2", (7,))
    True
    """
    digest = hashlib.blake2b(msgspec.json.encode([release, *keys]), digest_size=8).digest()
    return int.from_bytes(digest) % WHOLE
