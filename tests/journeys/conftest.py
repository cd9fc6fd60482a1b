"""Real processes: nodes on real sockets, commands that are killed."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from konveyer.execution.serving.presence import nodes_of


@contextmanager
def node(command: list[str], root: Path, environment: str) -> Iterator[tuple[str, Any]]:
    """A serving node; its URL and its process."""
    log = root / "node.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        try:
            wait_for(lambda: nodes_of(root / "state", environment), process)
            yield nodes_of(root / "state", environment)[0].url, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def wait_for(
    condition: Callable[[], object], process: "subprocess.Popen[bytes] | None" = None
) -> None:
    """Return once `condition` holds; fail after a minute, or when `process` has ended."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        assert process is None or process.poll() is None, "the process ended"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def production(released_shop: Any) -> Iterator[httpx.Client]:
    """A client of a production node of the released workspace."""
    command = released_shop.command("serve", "prod", "--port", "0")
    with (
        node(command, released_shop.root, "prod") as (url, _),
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        wait_for(lambda: client.get("/coupon-response/v1").is_success)
        yield client


@pytest.fixture
def shop_copy(released_shop: Any, tmp_path: Path) -> Any:
    """A copy of the released workspace for one test to change."""
    copy = type(released_shop)(tmp_path / "copy")
    shutil.copytree(released_shop.root, copy.root, symlinks=True)
    return copy
