"""Upkeep of pushed rows: merging, vacuum, and forgetting."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import Held, find_entity
from konveyer.feature_store.offline import layout
from konveyer.feature_store.push import accept
from konveyer.feature_store.push.compaction import compact
from konveyer.feature_store.push.errors import EntityForgotten
from konveyer.feature_store.push.vacuum import SegmentVacuum, plan_segments, vacuum_segments
from konveyer.feature_store.sources.segments import locked_pushes
from tests.unit.push.bench import (
    CLIENT,
    NEWEST,
    PAYMENTS,
    SCORING,
    SPEND,
    Bench,
    opened_bench,
    payment,
)

TWO_DAYS_S = 2 * 86_400


@pytest.fixture
def bench(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Bench]:
    with opened_bench(catalog, admin, tmp_path) as bench:
        yield bench


def merged(bench: Bench) -> int:
    folder = bench.store.services.pushed
    with locked_pushes(folder):
        return compact(bench.store.services.catalog, folder)


def minute(number: int) -> str:
    return f"2026-01-31T00:{number:02d}:00Z"


def pushed(bench: Bench, *numbers: int) -> None:
    """Push `number` has one payment of client 1, of that amount, and arrives at that minute."""
    for number in numbers:
        rows = [payment(1, "30T12:00", float(number))]
        bench.push(rows, key=f"k{number}", now=minute(number))


def test_many_segments_become_one_and_nothing_else_changes(bench: Bench) -> None:
    pushed(bench, 1, 2, 3)
    bench.store.etl()
    pushed(bench, 4, 5)
    before = bench.online(1)
    assert before == [(15.0, 5, "web", 5.0)]
    assert merged(bench) == 5
    assert len(bench.listed()) == 1
    pushed(bench, 2, 6)
    assert bench.online(1) == [(21.0, 6, "web", 6.0)]
    bench.store.etl()
    assert bench.online(1) == bench.trained([1]) == [(21.0, 6, "web", 6.0)]
    assert merged(bench) == 2
    assert merged(bench) == 0


def test_a_run_that_took_up_half_of_a_merged_segment(bench: Bench) -> None:
    """As of minute 2, the run leaves push 3 to the next one; both are in one file by then."""
    pushed(bench, 1, 2, 3)
    early = replace(bench.store, now_us=parse_instant(minute(2)))
    early.etl()
    (run,) = bench.runs("spend")
    assert (run.rows, run.last_push) == (2, 2)
    assert bench.online(1) == [(6.0, 3, "web", 3.0)]
    assert merged(bench) == 3
    pushed(bench, 4)
    assert bench.online(1) == [(10.0, 4, "web", 4.0)]
    early.etl()
    assert bench.runs("spend")[0].rows == 2
    assert bench.online(1) == [(10.0, 4, "web", 4.0)]
    bench.store.etl()
    assert bench.online(1) == bench.trained([1]) == [(10.0, 4, "web", 4.0)]


def test_pushes_of_one_moment_are_never_in_the_middle_of_a_file(bench: Bench) -> None:
    for key in "abc":
        bench.push([payment(1, "30T12:00", 1.0)], key=key)
        bench.store.etl()
        assert merged(bench) == 0
    assert bench.online(1) == bench.trained([1]) == [(3.0, 3, "web", 1.0)]


def test_another_source_at_the_same_moment_does_not_blur_the_boundary(bench: Bench) -> None:
    refunds = replace(PAYMENTS, name="refunds")
    bench.store.apply(CLIENT, PAYMENTS, refunds, SPEND, NEWEST, SCORING)
    pushed(bench, 1)
    bench.push([payment(1, "30T12:00", 9.0)], key="r", source="refunds", now=minute(2))
    bench.store.etl()
    bench.push([payment(1, "30T12:00", 2.0)], key="k2", now=minute(2))
    assert bench.online(1) == [(3.0, 2, "web", 2.0)]
    assert merged(bench) == 2
    assert bench.runs("spend")[0].last_push == 2
    pushed(bench, 3)
    assert bench.online(1) == [(6.0, 3, "web", 3.0)]


def test_segments_are_merged_up_to_the_size_of_a_bucket(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 2)
    pushed(bench, 1, 2, 3, 4, 5)
    assert merged(bench) == 4
    assert len(bench.listed()) == 3
    assert merged(bench) == 0
    assert bench.online(1) == [(15.0, 5, "web", 5.0)]


def test_pushes_merge_by_themselves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_COMPACTED_EVERY", 4)
    pushed(bench, 1, 2, 3, 4, 5)
    assert len(bench.listed()) == 2
    assert bench.online(1) == [(15.0, 5, "web", 5.0)]


def vacuumed(bench: Bench) -> list[SegmentVacuum]:
    services = bench.store.services
    plan = plan_segments(services.catalog, bench.store.admin, services.pushed, keep_us=0)
    vacuum_segments(services.catalog, bench.store.admin, services.pushed, plan)
    return plan


def test_vacuum_takes_what_no_push_is_in(bench: Bench) -> None:
    pushed(bench, 1, 2)
    folder = bench.store.services.pushed / "payments"
    left = folder / "000000000009-abcdef01.parquet"
    draft = folder / ".000000000009-abcdef01.parquet.1.draft"
    for file in (left, draft):
        file.write_bytes(b"PAR1")
    old = bench.segments()[:2]
    for file in (left, draft, *old):
        os.utime(file, (0, file.stat().st_mtime - TWO_DAYS_S))
    merged(bench)
    assert [plan.files for plan in vacuumed(bench)] == [(draft, left)]
    assert vacuumed(bench) == [], "files count from when they were merged"
    for file in old:
        os.utime(file, (0, file.stat().st_mtime - TWO_DAYS_S))
    (plan,) = vacuumed(bench)
    assert set(plan.files) == set(old)
    assert len(bench.segments()) == 1
    pushed(bench, 3)
    bench.store.etl()
    assert bench.online(1) == bench.trained([1]) == [(6.0, 3, "web", 3.0)]
    with bench.store.services.catalog.reading() as session:
        entries = [e for e in audit.entries(session, kind="source") if e.action == "vacuumed"]
    assert [entry.detail["files"] for entry in entries] == [2, 2]
    services, nobody = bench.store.services, Actor("he", frozenset({Role.ANALYST}))
    with pytest.raises(NotAllowed):
        plan_segments(services.catalog, nobody, services.pushed, keep_us=0)


def found(bench: Bench) -> Held:
    store = bench.store
    folder = bench.root / "training_sets"
    return find_entity(store.services, store.admin, folder, "client", {"client": "1"})


def forgotten(bench: Bench) -> Held:
    store = bench.store
    folder = bench.root / "training_sets"
    return forget(store.services, store.admin, folder, lambda: found(bench), everywhere=False)


def test_who_is_forgotten_leaves_pushed_rows_and_may_not_come_back(bench: Bench) -> None:
    mixed = [payment(1, "30T12:00", 1.0), payment(2, "30T12:00", 2.0)]
    first = bench.push(mixed, key="a")
    bench.store.etl()
    bench.push([payment(1, "30T13:00", 1.0)], key="b")
    left = bench.store.services.pushed / "payments" / ".x.parquet.1.draft"
    left.write_bytes(b"his rows")
    assert [(one.source, one.rows) for one in found(bench).segments] == [("payments", 1)] * 2

    held = forgotten(bench)

    assert len(held.segments) == 2
    assert found(bench).segments == ()
    assert not left.exists()
    assert [row["client"] for row in bench.kept()] == [2]
    assert bench.online(1, 2) == [None, (2.0, 1, "web", 2.0)]
    with pytest.raises(EntityForgotten) as caught:
        bench.push([payment(2, "30T12:00"), payment(1, "30T12:00")], key="c")
    assert (caught.value.status, caught.value.code) == (403, "entity_forgotten")
    assert "row 2" in caught.value.message
    bench.store.etl()
    assert bench.online(1, 2) == [None, (2.0, 1, "web", 2.0)]
    assert bench.trained([1, 2]) == [(None, 0, None, None), (2.0, 1, "web", 2.0)]
    with pytest.raises(EntityForgotten):
        bench.push(mixed, key="a")
    assert [row.number for row in bench.pushes()] == [first.number, 2]


def test_a_process_that_had_his_rows_in_memory_does_not_bring_them_back(bench: Bench) -> None:
    pusher = bench.pusher()
    for key, client in (("a", 1), ("b", 2)):
        pusher.push(bench.store.admin, "payments", [payment(client, "30T12:00")], key=key)
    forgotten(bench)
    pusher.push(bench.store.admin, "payments", [payment(2, "30T13:00")], key="c")
    assert bench.online(1, 2) == [None, (2.0, 2, "web", 1.0)]
