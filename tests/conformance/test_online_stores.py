"""Every online store passes the suite that ships with the package."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.lmdb import LmdbOnlineStore
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.testing.online_store import OnlineStoreConformance, record


class TestMemory(OnlineStoreConformance):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryOnlineStore()


class TestLmdb(OnlineStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = LmdbOnlineStore(tmp_path)
        yield store
        store.close()


def _fill(folder: Path, rows: int) -> None:
    store = LmdbOnlineStore(folder)
    store.put("s", [record(n.to_bytes(8, "big"), 1, b"x" * 3000) for n in range(rows)])
    store.close()


def test_a_reader_follows_when_another_process_grows_the_map(tmp_path: Path) -> None:
    reader = LmdbOnlineStore(tmp_path)
    assert reader.get("s", [b"a"]) == [None]
    writer = multiprocessing.get_context("spawn").Process(target=_fill, args=(tmp_path, 40_000))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    (value,) = reader.get("s", [(39_999).to_bytes(8, "big")])
    assert value == record(b"", 1, b"x" * 3000).value
    reader.close()


def _overwrite_for_ever(folder: Path) -> None:
    store = LmdbOnlineStore(folder)
    for event_us in range(1_000_000):
        body = event_us.to_bytes(8, "big") * 50
        store.put("s", [record(bytes([n]), event_us, body) for n in range(200)])


def test_a_killed_writer_leaves_one_whole_publication(tmp_path: Path) -> None:
    reader = LmdbOnlineStore(tmp_path)
    writer = multiprocessing.get_context("spawn").Process(
        target=_overwrite_for_ever, args=(tmp_path,)
    )
    writer.start()
    while reader.get("s", [b"\0"]) == [None]:
        time.sleep(0.05)
    time.sleep(0.3)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    values = reader.get("s", [bytes([n]) for n in range(200)])
    assert len(set(values)) == 1
    after = record(bytes([7]), 2**40)
    reader.put("s", [after])
    assert reader.get("s", [after.key]) == [after.value]
    reader.close()
