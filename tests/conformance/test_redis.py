"""What a Redis server or cluster can do to the store, and the store to it."""

import logging
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.crc import key_slot

from konveyer.feature_store.online.base import OnlineStore, OnlineStoreUnavailable, Record
from konveyer.feature_store.online.redis import RedisOnlineStore
from konveyer.testing.online_store import got, publication, record
from tests.redis_servers import (
    RedisServer,
    authority,
    free_port,
    in_front,
    redis_cluster,
    redis_server,
)

ROOT = Path()
PASSWORD = "p@ss/w#rd 1"
WRITER = ("+get", "+getrange", "+set", "+evalsha", "+script", "+unlink", "+scan")


def opened(url: str, root: Path = ROOT) -> OnlineStore:
    return RedisOnlineStore.from_url(url, root)


def refusal(store: OnlineStore, *, writing: bool = False) -> OnlineStoreUnavailable:
    with pytest.raises(OnlineStoreUnavailable) as caught:
        store.put("s", [record(b"a", 1)]) if writing else got(store, "s", [b"a"])
    assert caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.empty()
    return shared


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may stop."""
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[OnlineStore]:
    store = opened(server.url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def test_many_keys_are_asked_for_together(server: RedisServer, store: OnlineStore) -> None:
    records = publication(1, rows=500)
    store.put("s", records)

    def reads() -> int:
        with server.client as client:
            return int(client.info("stats")["total_reads_processed"])

    before = reads()
    got(store, "s", [one.key for one in records])
    assert reads() - before < 20  # the server reads 16 KB at a time; one key each would be 500


def test_records_leave_in_batches_of_bounded_count_and_size(
    server: RedisServer, store: OnlineStore
) -> None:
    with server.client as client:

        def watched(rows: int, body: bytes) -> Iterator[Record]:
            for n in range(rows):
                yield record(n.to_bytes(4, "big"), 1, body)
            there.append(int(client.dbsize()))

        there: list[int] = []
        store.put("s", watched(1_500, b"small"))
        store.drop("s")
        store.put("s", watched(9, bytes(2**20)))
    assert there == [1_000, 8]


def test_spaces_are_dropped_without_commands_that_block(
    server: RedisServer, store: OnlineStore
) -> None:
    kept = publication(1, rows=10)
    store.put("kept", kept)
    store.put("s", publication(1, rows=5_000))
    with server.client as client:
        client.config_resetstat()
        client.set("another program's", "value")
        store.drop("s")
        assert client.dbsize() == len(kept) + 1
        commands = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    assert {"scan", "unlink"} <= commands
    assert not commands & {"keys", "del", "flushdb", "flushall"}
    assert got(store, "kept", [one.key for one in kept]) == [one.value for one in kept]


def test_workspaces_with_a_prefix_of_their_own_do_not_meet(server: RedisServer) -> None:
    mine, other = opened(f"{server.url}?prefix=mine"), opened(f"{server.url}?prefix=other")
    mine.put("s", [record(b"a", 1)])
    assert got(other, "s", [b"a"]) == [None]
    other.put("s", [record(b"a", 2)])
    other.drop("s")
    assert got(mine, "s", [b"a"]) == [record(b"a", 1).value]
    with server.client as client:
        assert [key.partition(b":")[0] for key in client.scan_iter()] == [b"mine"]
    mine.close()
    other.close()


def test_a_lost_script_is_loaded_again_and_the_order_of_writes_stays(
    server: RedisServer, store: OnlineStore
) -> None:
    for event_us in range(3):
        with server.client as client:
            client.script_flush()
        first, second = record(b"a", event_us, b"first"), record(b"a", event_us, b"second")
        store.put("s", [first, second])
        assert got(store, "s", [b"a"]) == [second.value]


def test_the_store_opens_without_its_server_and_follows_it(own_server: RedisServer) -> None:
    own_server.stop()
    store = opened(own_server.url)
    assert "refused" in str(refusal(store))
    for event_us in (1, 2):
        own_server.start()
        store.put("s", [record(b"a", event_us)])
        assert got(store, "s", [b"a"]) == [record(b"a", event_us).value]
        own_server.stop()
        assert f"redis://127.0.0.1:{own_server.port}" in str(refusal(store))
    store.close()


def test_a_server_that_does_not_answer_is_given_up_soon(own_server: RedisServer) -> None:
    store = opened(own_server.url)
    store.put("s", publication(1))
    own_server.freeze()
    started = time.monotonic()
    with pytest.raises(OnlineStoreUnavailable, match="cannot be read: Timeout"):
        got(store, "s", [one.key for one in publication(1)])
    assert time.monotonic() - started < 10
    own_server.thaw()
    assert got(store, "s", [publication(1)[0].key]) == [publication(1)[0].value]
    store.close()


def test_a_full_server_refuses_writes_and_still_answers(own_server: RedisServer) -> None:
    store = opened(own_server.url)
    kept = record(b"kept", 1)
    store.put("s", [kept])
    with own_server.client as client:
        client.config_set("maxmemory", "100kb")
    error = refusal(store, writing=True)
    assert "memory" in error.message
    assert "memory" in str(error.hint)
    assert got(store, "s", [kept.key]) == [kept.value]
    store.close()


def test_errors_and_logs_show_neither_password_nor_record(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = b"SALARY OF ANA"
    with own_server.client as client:
        client.execute_command("ACL SETUSER", "reader", "on", f">{PASSWORD}", "~konveyer:*", "+get")
        client.config_set("requirepass", PASSWORD)
    place = f"127.0.0.1:{own_server.port}"
    right, wrong = quote(PASSWORD, safe=""), quote(PASSWORD + "?", safe="")
    shown = []
    for url in (f"redis://:{wrong}@{place}", f"redis://{place}", f"redis://reader:{right}@{place}"):
        store = opened(url)
        with pytest.raises(OnlineStoreUnavailable) as caught:
            store.put("s", [record(secret, 1, secret)])
        shown += [*traceback.format_exception(caught.value), str(caught.value.as_dict())]
        assert "rights" in str(caught.value)
        store.close()
    own_server.stop()
    store = opened(f"redis://:{right}@{place}")
    shown += traceback.format_exception(refusal(store))
    store.close()
    text = "".join(shown) + caplog.text + repr(store)
    for hidden in (PASSWORD, right, wrong, secret.decode()):
        assert hidden not in text


def test_an_answer_that_quotes_the_command_is_cut(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--rename-command", "EVALSHA", "") as server:
        store = opened(server.url)
        secret = b"SALARY OF ANA"
        with pytest.raises(OnlineStoreUnavailable, match="unknown command") as caught:
            store.put("s", [record(secret, 1, secret)])
        shown = "".join(traceback.format_exception(caught.value))
        assert secret.decode() not in shown + str(caught.value.as_dict())
        store.close()


def test_readers_and_writers_need_no_more_rights_than_the_documents_say(
    server: RedisServer, cluster: list[RedisServer]
) -> None:
    for node in (server, *cluster):
        with node.client as client:
            more = () if node is server else ("+cluster", "+command")
            for user, rights in (("reader", ("+get",)), ("writer", WRITER)):
                given = ("on", ">pw", "~konveyer:*", *rights, *more)
                client.execute_command("ACL SETUSER", user, *given)
    records = publication(1, rows=10)
    keys = [one.key for one in records]
    for url in (server.url, cluster[0].cluster_url):
        reader, writer = (
            opened(url.replace("//", f"//{user}:pw@")) for user in ("reader", "writer")
        )
        writer.put("s", records)
        assert got(reader, "s", keys) == [one.value for one in records]
        assert "rights" in str(refusal(reader, writing=True))
        writer.delete("s", keys[:1])
        writer.drop("s")
        assert got(reader, "s", keys) == [None] * 10
        writer.close()
        reader.close()


def test_a_database_that_is_not_the_first_needs_the_right_to_select_it(server: RedisServer) -> None:
    url = f"{server.url.replace('//', '//chooser:pw@')}/1"
    with server.client as client:
        client.execute_command("ACL SETUSER", "chooser", "on", ">pw", "~konveyer:*", "+get")
        store = opened(url)
        assert "rights" in str(refusal(store))
        client.execute_command("ACL SETUSER", "chooser", "+select")
        assert got(store, "s", [b"a"]) == [None]
        store.close()


def test_a_certificate_is_verified_unless_the_url_says_otherwise(
    server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    ca, other = authority(tmp_path), authority(tmp_path / "other")
    with in_front([server.port], ca.context) as (port,):
        url = f"rediss://127.0.0.1:{port}"
        for options in ("", f"?ssl_ca_certs={other.file}"):
            store = opened(url + options)
            error = refusal(store)
            assert "certificate" in error.message.lower()
            assert "ssl_ca_certs" in str(error.hint)
            store.close()
        for options in ("?ssl_ca_certs=ca.pem", "?ssl_cert_reqs=none"):
            store = opened(url + options, tmp_path)
            store.put("s", [record(b"a", 1)])
            assert got(store, "s", [b"a"]) == [record(b"a", 1).value]
            store.close()
        store = opened(f"{url}?ssl_ca_certs=missing.pem", tmp_path)
        assert "No such file" in refusal(store).message
        store.close()


def test_a_certificate_of_another_host_is_refused(server: RedisServer, tmp_path: Path) -> None:
    ca = authority(tmp_path, host="redis.bank")
    with in_front([server.port], ca.context) as (port,):
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={ca.file}"
        store = opened(url)
        assert "certificate" in refusal(store).message.lower()
        store.close()
        store = opened(f"{url}&ssl_check_hostname=no")
        assert got(store, "s", [b"a"]) == [None]
        store.close()


def test_plain_text_to_a_server_that_wants_tls_ends_in_an_error(
    server: RedisServer, tmp_path: Path
) -> None:
    with in_front([server.port], authority(tmp_path).context) as (port,):
        store = opened(f"redis://127.0.0.1:{port}")
        refusal(store)
        store.close()


def test_a_cluster_named_as_one_server_is_told_as_such(cluster: list[RedisServer]) -> None:
    store = opened(cluster[0].url)
    with pytest.raises(OnlineStoreUnavailable, match=r"redis\+cluster:"):
        store.put("s", publication(1, rows=10))
    store.close()


def test_one_server_named_as_a_cluster_is_told_as_such(server: RedisServer) -> None:
    store = opened(server.cluster_url)
    assert "Cluster mode is not enabled" in refusal(store).message
    store.close()


def test_a_cluster_spreads_records_and_drops_them_on_every_node(
    cluster: list[RedisServer],
) -> None:
    store = opened(cluster[1].cluster_url)
    records = publication(1)
    store.put("s", records)
    sizes = [_size(node) for node in cluster]
    assert sum(sizes) == len(records)
    assert min(sizes) > len(records) // 5
    store.drop("s")
    assert [_size(node) for node in cluster] == [0, 0, 0]
    store.close()


def _size(node: RedisServer) -> int:
    with node.client as client:
        return int(client.dbsize())


def test_a_cluster_over_tls(tmp_path: Path) -> None:
    ca, inner = authority(tmp_path), [free_port() for _ in range(3)]
    with (
        in_front(inner, ca.context) as outer,
        redis_cluster(tmp_path / "cluster", ports=inner, announced=outer) as nodes,
    ):
        store = opened(f"rediss+cluster://127.0.0.1:{outer[0]}?ssl_ca_certs={ca.file}")
        records = publication(1)
        store.put("s", records)
        assert got(store, "s", [one.key for one in records]) == [one.value for one in records]
        assert min(_size(node) for node in nodes) > 0
        store.drop("s")
        assert [_size(node) for node in nodes] == [0, 0, 0]
        store.close()


def test_a_slot_that_moves_is_followed(cluster: list[RedisServer]) -> None:
    store = opened(cluster[0].cluster_url)
    records = [record(b"{t}" + one.key, 1, one.value) for one in publication(1, rows=100)]
    keys = [one.key for one in records]
    store.put("s", records)
    slot = key_slot(b"t")
    source = next(node for node in cluster if _size(node))
    target = next(node for node in cluster if node is not source)
    old: Any
    new: Any
    with source.client as old, target.client as new:
        old_id, new_id = (node.execute_command("CLUSTER MYID") for node in (old, new))
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
        _move(old, slot, target, 50)
        assert got(store, "s", keys) == [one.value for one in records]
        newer = [record(one.key, 2, b"newer") for one in records]
        store.put("s", newer)
        store.put("s", records)
        store.delete("s", keys[:10])
        wanted = [None] * 10 + [one.value for one in newer[10:]]
        assert got(store, "s", keys) == wanted
        _move(old, slot, target, 100)
        for client in (new, old):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", new_id)
    assert _size(source) == 0
    assert got(store, "s", keys) == wanted
    store.put("s", records)
    assert got(store, "s", keys) == [one.value for one in records[:10]] + wanted[10:]
    store.drop("s")
    store.close()


def _move(source: Any, slot: int, target: RedisServer, count: int) -> None:
    for key in source.execute_command("CLUSTER GETKEYSINSLOT", slot, count):
        source.execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)


def test_a_lost_node_is_given_up_soon_and_taken_up_again(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as nodes:
        options = "?socket_timeout=0.2&socket_connect_timeout=0.2"
        store = opened(nodes[0].cluster_url + options)
        records = publication(1)
        keys = [one.key for one in records]
        store.put("s", records)
        nodes[1].freeze()
        for write in (False, True):
            started = time.monotonic()
            with pytest.raises(OnlineStoreUnavailable):
                store.put("s", records) if write else got(store, "s", keys)
            assert time.monotonic() - started < 8
        nodes[1].thaw()
        deadline = time.monotonic() + 30
        while True:
            try:
                store.put("s", records)
                break
            except OnlineStoreUnavailable:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert got(store, "s", keys) == [one.value for one in records]
        store.close()


def test_a_node_that_hangs_for_a_moment_costs_no_answer(cluster: list[RedisServer]) -> None:
    store = opened(f"{cluster[0].cluster_url}?socket_timeout=0.2&socket_connect_timeout=0.2")
    for event_us in (1, 2):
        records = publication(event_us, rows=900)
        store.put("s", records)
        cluster[event_us].freeze()
        thawing = threading.Timer(0.3, cluster[event_us].thaw)
        thawing.start()
        if event_us == 2:
            store.put("s", publication(3, rows=900))
            records = publication(3, rows=900)
        assert got(store, "s", [one.key for one in records]) == [one.value for one in records]
        thawing.join()
    store.drop("s")
    store.close()


def test_a_cluster_whose_nodes_lost_their_scripts_gets_them_again(
    cluster: list[RedisServer],
) -> None:
    store = opened(cluster[0].cluster_url)
    store.put("s", publication(1))
    with cluster[2].client as client:
        client.script_flush()
    store.put("s", publication(2))
    assert got(store, "s", [one.key for one in publication(2)]) == [
        one.value for one in publication(2)
    ]
    store.drop("s")
    store.close()


def test_a_cluster_that_moved_as_a_whole_is_found_again_by_its_url(tmp_path: Path) -> None:
    port, records = free_port(), publication(1, rows=100)
    store = opened(f"redis+cluster://127.0.0.1:{port}")
    for place in ("first", "second"):
        with redis_cluster(tmp_path / place) as nodes, in_front([nodes[0].port], at=port):
            store.put("s", records)
            assert got(store, "s", [one.key for one in records]) == [one.value for one in records]
        refusal(store)
    store.close()
