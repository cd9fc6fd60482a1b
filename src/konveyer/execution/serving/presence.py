"""Which nodes are up: a small file for each, removed when it stops."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from konveyer.core.clock import now_us
from konveyer.core.files import write_atomically
from konveyer.core.processes import is_alive


class Presence(Struct, frozen=True, kw_only=True):
    """A running node and where it answers."""

    environment: str
    url: str
    pid: int
    started_us: int


@contextmanager
def announced(state: Path, environment: str, url: str) -> Iterator[None]:
    """Be known under `url` for the block."""
    path = state / "nodes" / f"{environment}-{os.getpid()}.json"
    presence = Presence(environment=environment, url=url, pid=os.getpid(), started_us=now_us())
    write_atomically(path, msgspec.json.encode(presence))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def nodes_of(state: Path, environment: str) -> list[Presence]:
    """The nodes whose process lives, newest first; files of dead ones are removed."""
    found = []
    for path in (state / "nodes").glob(f"{environment}-*.json"):
        presence = msgspec.json.decode(path.read_bytes(), type=Presence)
        if is_alive(presence.pid):
            found.append(presence)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda presence: -presence.started_us)
