"""Reads of an online store on a network, by threads that outlive whatever it does."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from konveyer.execution.serving.remote_reads import THREADS, RemoteReads
from konveyer.feature_store.online.base import OnlineStoreUnavailable


class Failing:
    """A store whose driver raises what nobody expects, and then recovers."""

    def __init__(self, failures: int) -> None:
        self._failures = failures

    def get(self, places: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
        if self._failures:
            self._failures -= 1
            raise ValueError("an answer that is no number")
        return [key for _, key in places]


def test_an_error_that_no_driver_should_raise_ends_no_thread() -> None:
    reads = RemoteReads(cast("Any", Failing(THREADS + 1)))

    async def ask() -> list[bytes | None]:
        return await reads.get([("space", b"key")], within_s=10)

    for _ in range(THREADS + 1):
        with pytest.raises(OnlineStoreUnavailable, match="ValueError"):
            asyncio.run(ask())
    assert asyncio.run(ask()) == [b"key"]
    reads.close()
