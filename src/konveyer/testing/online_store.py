"""The conformance suites of online stores: subclass one and override its fixtures."""

import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import pytest

from konveyer.feature_store.online.base import OnlineStore, Record, event_us_of

_FIRST, _LAST = -(2**63), 2**63 - 1
# Both ends, both sides of zero, where a double stops being exact, and where each byte turns over.
_EVENT_TIMES_US = sorted(
    {_FIRST, _FIRST + 1, -(2**53) - 1, -(2**53), -1, 0, 2**53, 2**53 + 1, _LAST - 1, _LAST}
    | {sign * 2 ** (8 * n) + step for sign in (-1, 1) for n in range(1, 8) for step in (-1, 0)}
)


class Interrupted(Exception):
    """What breaks a publication off in these tests."""


def record(key: bytes, event_us: int, body: bytes = b"", mark: bytes = bytes(8)) -> Record:
    """`mark` stands where the fingerprint of a schema stands."""
    return Record(key, mark + struct.pack("<q", event_us) + body)


def publication(event_us: int, *, rows: int = 3_000) -> list[Record]:
    """Records whose bodies repeat their event time, so that a mixture of two would show."""
    body = struct.pack("<q", event_us) * 40
    return [record(n.to_bytes(4, "big"), event_us, body) for n in range(rows)]


def got(store: OnlineStore, space: str, keys: Sequence[bytes]) -> list[bytes | None]:
    return store.get([(space, key) for key in keys])


def assert_whole(values: "list[bytes | None]", *event_times_us: int) -> None:
    """Each value is that of a `publication` of one of these times."""
    allowed = {publication(event_us, rows=1)[0].value for event_us in event_times_us}
    assert set(values) <= allowed


@contextmanager
def threads_that_alternate() -> Iterator[None]:
    """Python changes threads after nearly every instruction, which brings races out."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)


class OnlineStoreConformance:
    """What every online store must do. A backend gives a fresh `store` for each test."""

    @pytest.fixture
    def store(self) -> OnlineStore:
        pytest.fail("override the `store` fixture")

    def test_reads_in_the_order_asked_and_none_for_unknown_keys(self, store: OnlineStore) -> None:
        a, b = record(b"a", 1, b"A"), record(b"b", 1, b"B")
        store.put("s", [a, b])
        assert got(store, "s", [b"b", b"x", b"a", b"b"]) == [b.value, None, a.value, b.value]

    def test_an_older_event_never_overwrites_a_newer_one(self, store: OnlineStore) -> None:
        newer = record(b"a", 10, b"new")
        store.put("s", [newer])
        store.put("s", [record(b"a", 9, b"old")])
        assert got(store, "s", [b"a"]) == [newer.value]

    def test_a_record_whose_newer_row_was_taken_back_is_replaced(self, store: OnlineStore) -> None:
        store.put("s", [record(b"a", 10, b"taken back"), record(b"b", 10)])
        older = record(b"a", 9, b"what is left")
        store.put("s", [older], even_older=True)
        assert got(store, "s", [b"a", b"b"]) == [older.value, record(b"b", 10).value]
        store.put("s", [record(b"a", 8, b"too old")])
        assert got(store, "s", [b"a"]) == [older.value]

    def test_of_equal_events_the_later_write_wins(self, store: OnlineStore) -> None:
        later = record(b"a", 10, b"second")
        store.put("s", [record(b"a", 10, b"first"), later])
        assert got(store, "s", [b"a"]) == [later.value]

    def test_events_before_1970_are_ordered_too(self, store: OnlineStore) -> None:
        newer = record(b"a", -5)
        store.put("s", [newer])
        store.put("s", [record(b"a", -6, b"old")])
        assert got(store, "s", [b"a"]) == [newer.value]

    def test_spaces_do_not_see_each_other(self, store: OnlineStore) -> None:
        store.put("s", [record(b"a", 1)])
        assert got(store, "t", [b"a"]) == [None]

    def test_one_read_answers_for_several_spaces_in_the_order_asked(
        self, store: OnlineStore
    ) -> None:
        one, other = record(b"a", 1, b"one"), record(b"a", 1, b"other")
        store.put("s", [one])
        store.put("t", [other])
        asked = [("t", b"a"), ("s", b"a"), ("u", b"a"), ("t", b"b"), ("t", b"a")]
        assert store.get(asked) == [other.value, one.value, None, None, other.value]

    def test_delete_removes_just_the_keys_named(self, store: OnlineStore) -> None:
        kept = record(b"b", 1)
        store.put("s", [record(b"a", 1), kept])
        store.delete("s", [b"a", b"never written"])
        assert got(store, "s", [b"a", b"b"]) == [None, kept.value]

    def test_drop_empties_one_space(self, store: OnlineStore) -> None:
        kept = record(b"a", 1)
        store.put("s", [record(bytes([n]), 1) for n in range(256)])
        store.put("t", [kept])
        store.drop("s")
        assert got(store, "s", [bytes([n]) for n in range(256)]) == [None] * 256
        assert got(store, "t", [b"a"]) == [kept.value]

    def test_keys_and_values_of_any_length(self, store: OnlineStore) -> None:
        records = [record(b"k" * size, 1, b"v" * size * 10) for size in (1, 400, 511, 5000)]
        store.put("s", records)
        assert got(store, "s", [r.key for r in records]) == [r.value for r in records]

    def test_many_records_in_one_put(self, store: OnlineStore) -> None:
        records = [record(n.to_bytes(8, "big"), n, b"x" * 2000) for n in range(50_000)]
        store.put("s", records)
        assert got(store, "s", [records[0].key, records[-1].key]) == [
            records[0].value,
            records[-1].value,
        ]

    def test_a_reader_sees_whole_records_while_another_thread_writes(
        self, store: OnlineStore
    ) -> None:
        bodies = [bytes([n]) * 1000 for n in range(2)]
        store.put("s", [record(b"a", 0, bodies[0])])
        ended = threading.Event()

        def write() -> None:
            for event_us in range(300):
                store.put("s", [record(b"a", event_us, bodies[event_us % 2])])
            ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        while not ended.is_set():
            (value,) = got(store, "s", [b"a"])
            assert value is not None
            assert value[16:] in bodies
        writer.join()

    def test_nothing_asked_gives_nothing_and_nothing_put_changes_nothing(
        self, store: OnlineStore
    ) -> None:
        kept = record(b"a", 1)
        store.put("s", [kept])
        store.put("s", [])
        store.delete("s", [])
        assert got(store, "s", []) == []
        assert got(store, "s", [b"a"]) == [kept.value]

    def test_event_times_are_ordered_over_all_64_bits(self, store: OnlineStore) -> None:
        for older, newer in pairwise(_EVENT_TIMES_US):
            first, second = f"{older} first".encode(), f"{older} second".encode()
            store.put("s", [record(first, newer, b"new"), record(second, older, b"old")])
            store.put("s", [record(first, older, b"old"), record(second, newer, b"new")])
            wanted = record(b"", newer, b"new").value
            assert got(store, "s", [first, second]) == [wanted, wanted], (older, newer)

    def test_the_event_time_alone_decides(self, store: OnlineStore) -> None:
        later = record(b"a", 1, b"", mark=bytes(8))
        store.put("s", [record(b"a", 1, b"\xff" * 20, mark=b"\xff" * 8)])
        store.put("s", [later])
        assert got(store, "s", [b"a"]) == [later.value]

    def test_keys_and_values_of_every_byte(self, store: OnlineStore) -> None:
        every = bytes(range(256))
        keys = [bytes([n]) for n in range(256)]
        keys += [every, b"a\r\nGET b\r\n", b"{a}b", b"{}", b"a*", b"[a-z]?", b"\\*", "é".encode()]
        records = [record(key, n, key + every, mark=every[-8:]) for n, key in enumerate(keys)]
        store.put("s", records)
        assert got(store, "s", keys) == [one.value for one in records]
        store.delete("s", [b"a*", b"[a-z]?"])
        gone = [key for key in keys if got(store, "s", [key]) == [None]]
        assert gone == [b"a*", b"[a-z]?"]

    def test_ten_thousand_keys_at_once(self, store: OnlineStore) -> None:
        records = publication(1, rows=10_000)
        store.put("s", records)
        asked = [one.key for one in reversed(records)] + [b"unknown"]
        assert got(store, "s", asked) == [one.value for one in reversed(records)] + [None]
        store.delete("s", [one.key for one in records[::2]])
        left = got(store, "s", [one.key for one in records])
        assert left == [one.value if n % 2 else None for n, one in enumerate(records)]

    def test_a_record_of_another_schema_replaces_the_old_one_whole(
        self, store: OnlineStore
    ) -> None:
        for event_us, body in enumerate((b"long" * 500, b"", b"short")):
            new = record(b"a", event_us, body, mark=bytes([event_us]) * 8)
            store.put("s", [new])
            assert got(store, "s", [b"a"]) == [new.value]

    def test_an_interrupted_put_leaves_whole_records_and_can_be_repeated(
        self, store: OnlineStore
    ) -> None:
        old, new = publication(1), publication(2)
        keys = [one.key for one in old]
        store.put("s", old)

        def breaking_off() -> Iterator[Record]:
            yield from new[: len(new) // 2]
            raise Interrupted

        with pytest.raises(Interrupted):
            store.put("s", breaking_off())
        values = got(store, "s", keys)
        assert_whole(values, 1, 2)
        assert values[len(new) // 2 :] == [one.value for one in old[len(new) // 2 :]]
        store.put("s", new)
        assert got(store, "s", keys) == [one.value for one in new]

    def test_a_replayed_publication_changes_nothing(self, store: OnlineStore) -> None:
        old, new = publication(1), publication(2)
        for records in (old, new, old, new, old):
            store.put("s", records)
        assert got(store, "s", [one.key for one in new]) == [one.value for one in new]

    def test_a_deleted_entity_leaves_nothing_behind(self, store: OnlineStore) -> None:
        """Not even its event time: what is written after is a first record."""
        older = record(b"a", 1, b"older")
        store.put("s", [record(b"a", 9, b"newer")])
        store.delete("s", [b"a"])
        assert got(store, "s", [b"a"]) == [None]
        store.put("s", [older])
        assert got(store, "s", [b"a"]) == [older.value]

    def test_after_a_deletion_only_a_replay_that_holds_the_entity_brings_it_back(
        self, store: OnlineStore
    ) -> None:
        records = publication(1, rows=100)
        forgotten, others = records[0], records[1:]
        keys = [one.key for one in records]
        store.put("s", records)
        store.delete("s", [forgotten.key])
        store.put("s", others)
        assert got(store, "s", keys) == [None, *(one.value for one in others)]
        store.put("s", records)
        assert got(store, "s", keys) == [one.value for one in records]

    def test_many_threads_see_whole_records_while_one_writes(self, store: OnlineStore) -> None:
        keys = [one.key for one in publication(0, rows=50)]
        store.put("s", publication(0, rows=50))
        ended = threading.Event()

        def read() -> int:
            reads = 0
            while not ended.is_set():
                assert_whole(got(store, "s", keys), *range(60))
                reads += 1
            return reads

        with ThreadPoolExecutor(6) as threads:
            readers = [threads.submit(read) for _ in range(6)]
            try:
                for event_us in range(1, 60):
                    store.put("s", publication(event_us, rows=50))
            finally:
                ended.set()
            assert all(reader.result() for reader in readers)
        assert_whole(got(store, "s", keys), 59)

    def test_of_many_writers_the_newest_event_wins(self, store: OnlineStore) -> None:
        keys = [one.key for one in publication(0, rows=500)]
        for first in range(1, 41, 4):
            at_once = [publication(first + n, rows=500) for n in range(4)]
            with threads_that_alternate(), ThreadPoolExecutor(4) as threads:
                list(threads.map(partial(store.put, "s"), at_once))
            assert_whole(got(store, "s", keys), first + 3)


class SharedOnlineStoreConformance(OnlineStoreConformance):
    """What a store must also do that processes share.

    `elsewhere` opens the store in another process that reads and writes the same records: a
    function that can be pickled.
    """

    @pytest.fixture
    def elsewhere(self) -> Callable[[], OnlineStore]:
        pytest.fail("override the `elsewhere` fixture")

    def test_what_another_process_wrote_can_be_read(
        self, store: OnlineStore, elsewhere: Callable[[], OnlineStore]
    ) -> None:
        assert got(store, "s", [publication(1)[0].key]) == [None]
        writer = _started(_publish, elsewhere, 1)
        writer.join()
        assert writer.exitcode == 0
        assert got(store, "s", [one.key for one in publication(1)]) == [
            one.value for one in publication(1)
        ]

    def test_readers_in_other_processes_see_whole_records(
        self, store: OnlineStore, elsewhere: Callable[[], OnlineStore]
    ) -> None:
        store.put("s", publication(1))
        readers = [_started(_read_until_2, elsewhere) for _ in range(2)]
        while any(reader.is_alive() for reader in readers):
            store.put("s", publication(1))
            store.put("s", publication(2))
            store.delete("s", [one.key for one in publication(2)[:10]])
        assert [reader.exitcode for reader in readers] == [0, 0]

    def test_a_killed_writer_leaves_whole_records_and_can_be_repeated(
        self, store: OnlineStore, elsewhere: Callable[[], OnlineStore]
    ) -> None:
        keys = [one.key for one in publication(0)]
        writer = _started(_publish_for_ever, elsewhere)
        while None in got(store, "s", keys):
            time.sleep(0.02)
        time.sleep(0.3)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        values = [value for value in got(store, "s", keys) if value is not None]
        assert len(values) == len(keys)
        assert_whole(list(values), *{event_us_of(value) for value in values})
        store.put("s", publication(_LAST))
        assert_whole(got(store, "s", keys), _LAST)


def _started(work: Callable[..., None], *arguments: object) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    return process


def _publish(elsewhere: Callable[[], OnlineStore], event_us: int) -> None:
    store = elsewhere()
    store.put("s", publication(event_us))
    store.close()


def _publish_for_ever(elsewhere: Callable[[], OnlineStore]) -> None:
    store = elsewhere()
    for event_us in range(1_000_000):
        store.put("s", publication(event_us))


def _read_until_2(elsewhere: Callable[[], OnlineStore]) -> None:
    """Reads until a record of time 2 was seen twenty times, and fails at a mixture."""
    store = elsewhere()
    keys = [one.key for one in publication(0)]
    seen = 0
    while seen < 20:
        values = [value for value in got(store, "s", keys) if value is not None]
        assert_whole(list(values), 1, 2)
        seen += any(event_us_of(value) == 2 for value in values)
    store.close()
