"""The conformance suite of online stores: subclass it and override the `store` fixture."""

import struct
import threading

import pytest

from konveyer.feature_store.online.base import OnlineStore, Record


def record(key: bytes, event_us: int, body: bytes = b"") -> Record:
    return Record(key, bytes(8) + struct.pack("<q", event_us) + body)


class OnlineStoreConformance:
    """What every online store must do. A backend gives a fresh `store` for each test."""

    @pytest.fixture
    def store(self) -> OnlineStore:
        pytest.fail("override the `store` fixture")

    def test_reads_in_the_order_asked_and_none_for_unknown_keys(self, store: OnlineStore) -> None:
        a, b = record(b"a", 1, b"A"), record(b"b", 1, b"B")
        store.put("s", [a, b])
        assert store.get("s", [b"b", b"x", b"a", b"b"]) == [b.value, None, a.value, b.value]

    def test_an_older_event_never_overwrites_a_newer_one(self, store: OnlineStore) -> None:
        newer = record(b"a", 10, b"new")
        store.put("s", [newer])
        store.put("s", [record(b"a", 9, b"old")])
        assert store.get("s", [b"a"]) == [newer.value]

    def test_of_equal_events_the_later_write_wins(self, store: OnlineStore) -> None:
        later = record(b"a", 10, b"second")
        store.put("s", [record(b"a", 10, b"first"), later])
        assert store.get("s", [b"a"]) == [later.value]

    def test_events_before_1970_are_ordered_too(self, store: OnlineStore) -> None:
        newer = record(b"a", -5)
        store.put("s", [newer])
        store.put("s", [record(b"a", -6, b"old")])
        assert store.get("s", [b"a"]) == [newer.value]

    def test_spaces_do_not_see_each_other(self, store: OnlineStore) -> None:
        store.put("s", [record(b"a", 1)])
        assert store.get("t", [b"a"]) == [None]

    def test_delete_removes_just_the_keys_named(self, store: OnlineStore) -> None:
        kept = record(b"b", 1)
        store.put("s", [record(b"a", 1), kept])
        store.delete("s", [b"a", b"never written"])
        assert store.get("s", [b"a", b"b"]) == [None, kept.value]

    def test_drop_empties_one_space(self, store: OnlineStore) -> None:
        kept = record(b"a", 1)
        store.put("s", [record(bytes([n]), 1) for n in range(256)])
        store.put("t", [kept])
        store.drop("s")
        assert store.get("s", [bytes([n]) for n in range(256)]) == [None] * 256
        assert store.get("t", [b"a"]) == [kept.value]

    def test_keys_and_values_of_any_length(self, store: OnlineStore) -> None:
        records = [record(b"k" * size, 1, b"v" * size * 10) for size in (1, 400, 511, 5000)]
        store.put("s", records)
        assert store.get("s", [r.key for r in records]) == [r.value for r in records]

    def test_many_records_in_one_put(self, store: OnlineStore) -> None:
        records = [record(n.to_bytes(8, "big"), n, b"x" * 2000) for n in range(50_000)]
        store.put("s", records)
        assert store.get("s", [records[0].key, records[-1].key]) == [
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
            (value,) = store.get("s", [b"a"])
            assert value is not None
            assert value[16:] in bodies
        writer.join()
