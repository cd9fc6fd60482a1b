"""Every online store passes the suite that ships with the package."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable
from konveyer.feature_store.online.lmdb import LmdbOnlineStore
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.online.redis import RedisOnlineStore
from konveyer.feature_store.online.several import SeveralOnlineStores
from konveyer.testing.online_store import (
    OnlineStoreConformance,
    SharedOnlineStoreConformance,
    got,
    record,
)
from tests.redis_servers import (
    RedisServer,
    authority,
    in_front,
    redis_cluster,
    redis_server,
)


class TestMemory(OnlineStoreConformance):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return MemoryOnlineStore()


class TestSeveral(OnlineStoreConformance):
    @pytest.fixture
    def store(self) -> OnlineStore:
        return SeveralOnlineStores({"test": MemoryOnlineStore(), "prod": MemoryOnlineStore()})


class TestLmdb(SharedOnlineStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[OnlineStore]:
        store = LmdbOnlineStore(tmp_path)
        yield store
        store.close()

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Callable[[], OnlineStore]:
        return partial(LmdbOnlineStore, tmp_path)


class OnRedis(SharedOnlineStoreConformance):
    """On servers that a subclass starts once; every test finds them empty."""

    @pytest.fixture
    def url(self) -> str:
        pytest.fail("override the `url` fixture")

    @pytest.fixture
    def elsewhere(self, url: str) -> Callable[[], OnlineStore]:
        return partial(RedisOnlineStore.from_url, url, Path())

    @pytest.fixture
    def store(self, elsewhere: Callable[[], OnlineStore]) -> Iterator[OnlineStore]:
        store = elsewhere()
        yield store
        store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def tls_url(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ca = authority(tmp_path_factory.mktemp("ca"))
    with in_front([server.port], ca.context) as (port,):
        yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca.file}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


class TestRedis(OnRedis):
    @pytest.fixture
    def url(self, server: RedisServer) -> str:
        server.empty()
        return server.url


class TestRedisOverTls(OnRedis):
    @pytest.fixture
    def url(self, server: RedisServer, tls_url: str) -> str:
        server.empty()
        return tls_url


class TestRedisCluster(OnRedis):
    @pytest.fixture
    def url(self, nodes: list[RedisServer]) -> str:
        for node in nodes:
            node.empty()
        return nodes[0].cluster_url


def _fill(folder: Path, rows: int) -> None:
    store = LmdbOnlineStore(folder)
    store.put("s", [record(n.to_bytes(8, "big"), 1, b"x" * 3000) for n in range(rows)])
    store.close()


def test_a_reader_follows_when_another_process_grows_the_map(tmp_path: Path) -> None:
    reader = LmdbOnlineStore(tmp_path)
    assert got(reader, "s", [b"a"]) == [None]
    writer = multiprocessing.get_context("spawn").Process(target=_fill, args=(tmp_path, 40_000))
    writer.start()
    writer.join()
    assert writer.exitcode == 0
    (value,) = got(reader, "s", [(39_999).to_bytes(8, "big")])
    assert value == record(b"", 1, b"x" * 3000).value
    reader.close()


def test_threads_go_on_reading_while_another_grows_the_map(tmp_path: Path) -> None:
    store = LmdbOnlineStore(tmp_path)
    first = [record(bytes([n]), 1, b"x" * 300) for n in range(100)]
    store.put("s", first)
    ended = threading.Event()

    def read() -> int:
        reads = 0
        while not ended.is_set():
            assert got(store, "s", [one.key for one in first]) == [one.value for one in first]
            reads += 1
        return reads

    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        try:
            for block in range(3):
                keys = (n.to_bytes(8, "big") for n in range(block * 20_000, (block + 1) * 20_000))
                store.put("s", [record(key, 1, b"x" * 3000) for key in keys])
        finally:
            ended.set()
        assert all(reader.result() for reader in readers)
    store.close()


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
    while got(reader, "s", [b"\0"]) == [None]:
        time.sleep(0.05)
    time.sleep(0.3)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    values = got(reader, "s", [bytes([n]) for n in range(200)])
    assert len(set(values)) == 1
    after = record(bytes([7]), 2**40)
    reader.put("s", [after])
    assert got(reader, "s", [after.key]) == [after.value]
    reader.close()


def _killed_in_a_read(folder: Path) -> None:
    store = LmdbOnlineStore(folder)
    with store._environment.env.begin():
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_killed_in_a_read_does_not_make_the_file_grow(tmp_path: Path) -> None:
    store = LmdbOnlineStore(tmp_path)

    def publish(event_us: int) -> int:
        store.put("s", [record(bytes([n]), event_us, b"x" * 3000) for n in range(200)])
        return (tmp_path / "data.mdb").stat().st_size

    for event_us in range(5):
        before = publish(event_us)
    reader = multiprocessing.get_context("spawn").Process(
        target=_killed_in_a_read, args=(tmp_path,)
    )
    reader.start()
    reader.join()
    assert reader.exitcode == -signal.SIGKILL
    assert max(publish(event_us) for event_us in range(5, 30)) <= 2 * before
    store.close()


def test_stores_of_one_process_share_a_folder_until_the_last_one_closes(tmp_path: Path) -> None:
    one, other = LmdbOnlineStore(tmp_path), LmdbOnlineStore(tmp_path / "." / "x" / "..")
    written = record(b"a", 1)
    one.put("s", [written])
    one.close()
    assert got(other, "s", [b"a"]) == [written.value]
    with pytest.raises(OnlineStoreUnavailable, match="closed"):
        got(one, "s", [b"a"])
    other.close()
    again = LmdbOnlineStore(tmp_path)
    assert got(again, "s", [b"a"]) == [written.value]
    again.close()
