"""Real processes: nodes on real sockets, commands that are killed."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import Shop, node, wait_for


@pytest.fixture(scope="session")
def production(released_shop: Shop) -> Iterator[httpx.Client]:
    """A client of a production node of the released workspace."""
    command = released_shop.command("serve", "prod", "--port", "0")
    with (
        node(command, released_shop.root, "prod") as (url, _),
        httpx.Client(base_url=url, headers=released_shop.caller(), timeout=10) as client,
    ):
        wait_for(lambda: client.get("/coupon-response/v1").is_success)
        yield client


@pytest.fixture
def shop_copy(released_shop: Shop, tmp_path: Path) -> Shop:
    """A copy of the released workspace for one test to change."""
    return released_shop.copied_to(tmp_path / "copy")
