"""Upkeep of pushed rows: merging, vacuum, and forgetting."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from konveyer import Aggregation, Entity, FeatureView, JoinKey, PushedColumn, Source
from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.feature_store.datamart.forget import forget
from konveyer.feature_store.datamart.held import Held, find_entity
from konveyer.feature_store.engines.base import SourceUnreadable
from konveyer.feature_store.offline import layout
from konveyer.feature_store.push import accept
from konveyer.feature_store.push.compaction import compact
from konveyer.feature_store.push.errors import EntityForgotten
from konveyer.feature_store.push.vacuum import SegmentVacuum, plan_segments, vacuum_segments
from konveyer.feature_store.sources.segments import locked_pushes
from tests.unit.push.till import (
    CLIENT,
    NEWEST,
    PAYMENTS,
    SCORING,
    SPEND,
    Till,
    opened_till,
    payment,
)

TWO_DAYS_S = 2 * 86_400


@pytest.fixture
def till(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Till]:
    with opened_till(catalog, admin, tmp_path) as till:
        yield till


def merged(till: Till) -> int:
    folder = till.store.services.pushed
    with locked_pushes(folder):
        return compact(till.store.services.catalog, folder)


def minute(number: int) -> str:
    return f"2026-01-31T00:{number:02d}:00Z"


def pushed(till: Till, *numbers: int) -> None:
    """Push `number` has one payment of client 1, of that amount, and arrives at that minute."""
    for number in numbers:
        rows = [payment(1, "30T12:00", float(number))]
        till.push(rows, key=f"k{number}", now=minute(number))


def test_many_segments_become_one_and_nothing_else_changes(till: Till) -> None:
    pushed(till, 1, 2, 3)
    till.store.etl()
    pushed(till, 4, 5)
    before = till.online(1)
    assert before == [(15.0, 5, "web", 5.0)]
    assert merged(till) == 5
    assert len(till.listed()) == 1
    pushed(till, 2, 6)
    assert till.online(1) == [(21.0, 6, "web", 6.0)]
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(21.0, 6, "web", 6.0)]
    assert merged(till) == 2
    assert merged(till) == 0


def test_a_run_that_took_up_half_of_a_merged_segment(till: Till) -> None:
    """As of minute 2, the run leaves push 3 to the next one; both are in one file by then."""
    pushed(till, 1, 2, 3)
    early = replace(till.store, now_us=parse_instant(minute(2)))
    early.etl()
    (run,) = till.runs("spend")
    assert (run.rows, run.last_push) == (2, 2)
    assert till.online(1) == [(6.0, 3, "web", 3.0)]
    assert merged(till) == 3
    pushed(till, 4)
    assert till.online(1) == [(10.0, 4, "web", 4.0)]
    early.etl()
    assert till.runs("spend")[0].rows == 2
    assert till.online(1) == [(10.0, 4, "web", 4.0)]
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(10.0, 4, "web", 4.0)]


def test_pushes_of_one_moment_are_never_in_the_middle_of_a_file(till: Till) -> None:
    for key in "abc":
        till.push([payment(1, "30T12:00", 1.0)], key=key)
        till.store.etl()
        assert merged(till) == 0
    assert till.online(1) == till.trained([1]) == [(3.0, 3, "web", 1.0)]


def test_another_source_at_the_same_moment_does_not_blur_the_boundary(till: Till) -> None:
    refunds = replace(PAYMENTS, name="refunds")
    till.store.apply(CLIENT, PAYMENTS, refunds, SPEND, NEWEST, SCORING)
    pushed(till, 1)
    till.push([payment(1, "30T12:00", 9.0)], key="r", source="refunds", now=minute(2))
    till.store.etl()
    till.push([payment(1, "30T12:00", 2.0)], key="k2", now=minute(2))
    assert till.online(1) == [(3.0, 2, "web", 2.0)]
    assert merged(till) == 2
    assert till.runs("spend")[0].last_push == 2
    pushed(till, 3)
    assert till.online(1) == [(6.0, 3, "web", 3.0)]


def test_segments_are_merged_up_to_the_size_of_a_bucket(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", 2)
    pushed(till, 1, 2, 3, 4, 5)
    assert merged(till) == 4
    assert len(till.listed()) == 3
    assert merged(till) == 0
    assert till.online(1) == [(15.0, 5, "web", 5.0)]


def test_pushes_merge_by_themselves(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_COMPACTED_EVERY", 4)
    pushed(till, 1, 2, 3, 4, 5)
    assert len(till.listed()) == 2
    assert till.online(1) == [(15.0, 5, "web", 5.0)]


def vacuumed(till: Till) -> list[SegmentVacuum]:
    services = till.store.services
    plan = plan_segments(services.catalog, till.store.admin, services.pushed, keep_us=0)
    vacuum_segments(services.catalog, till.store.admin, services.pushed, plan)
    return plan


def test_vacuum_takes_what_no_push_is_in(till: Till) -> None:
    pushed(till, 1, 2)
    folder = till.store.services.pushed / "payments"
    left = folder / "000000000009-abcdef01.parquet"
    draft = folder / ".000000000009-abcdef01.parquet.1.draft"
    for file in (left, draft):
        file.write_bytes(b"PAR1")
    old = till.segments()[:2]
    for file in (left, draft, *old):
        os.utime(file, (0, file.stat().st_mtime - TWO_DAYS_S))
    merged(till)
    gone = folder / ".000000000010-abcdef01.parquet.1.draft"
    gone.symlink_to("nowhere")  # listed, and not there when it is looked at
    assert [plan.files for plan in vacuumed(till)] == [(draft, left)]
    assert vacuumed(till) == [], "files count from when they were merged"
    for file in old:
        os.utime(file, (0, file.stat().st_mtime - TWO_DAYS_S))
    (plan,) = vacuumed(till)
    assert set(plan.files) == set(old)
    assert len(till.segments()) == 1
    pushed(till, 3)
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(6.0, 3, "web", 3.0)]
    with till.store.services.catalog.reading() as session:
        entries = [e for e in audit.entries(session, kind="source") if e.action == "vacuumed"]
    assert [entry.detail["files"] for entry in entries] == [2, 2]
    services, nobody = till.store.services, Actor("he", frozenset({Role.ANALYST}))
    with pytest.raises(NotAllowed):
        plan_segments(services.catalog, nobody, services.pushed, keep_us=0)


def found(till: Till) -> Held:
    store = till.store
    folder = till.root / "training_sets"
    return find_entity(store.services, store.admin, folder, "client", {"client": "1"})


def forgotten(till: Till) -> Held:
    store = till.store
    folder = till.root / "training_sets"
    return forget(store.services, store.admin, folder, lambda: found(till), everywhere=False)


def test_who_is_forgotten_leaves_pushed_rows_and_may_not_come_back(till: Till) -> None:
    mixed = [payment(1, "30T12:00", 1.0), payment(2, "30T12:00", 2.0)]
    first = till.push(mixed, key="a")
    till.store.etl()
    till.push([payment(1, "30T13:00", 1.0)], key="b")
    left = till.store.services.pushed / "payments" / ".x.parquet.1.draft"
    left.write_bytes(b"his rows")
    assert [(one.source, one.rows) for one in found(till).segments] == [("payments", 1)] * 2

    held = forgotten(till)

    assert len(held.segments) == 2
    assert found(till).segments == ()
    assert not left.exists()
    assert [row["client"] for row in till.kept()] == [2]
    assert till.online(1, 2) == [None, (2.0, 1, "web", 2.0)]
    with pytest.raises(EntityForgotten) as caught:
        till.push([payment(2, "30T12:00"), payment(1, "30T12:00")], key="c")
    assert (caught.value.status, caught.value.code) == (403, "entity_forgotten")
    assert "row 2" in caught.value.message
    till.store.etl()
    assert till.online(1, 2) == [None, (2.0, 1, "web", 2.0)]
    assert till.trained([1, 2]) == [(None, 0, None, None), (2.0, 1, "web", 2.0)]
    with pytest.raises(EntityForgotten):
        till.push(mixed, key="a")
    assert [row.number for row in till.pushes()] == [first.number, 2]


def test_a_push_does_not_bring_him_back_under_another_name(till: Till) -> None:
    pushed(till, 1)
    forgotten(till)
    views = (replace(view, entity="customer") for view in (SPEND, NEWEST))
    till.store.apply(replace(CLIENT, name="customer"), PAYMENTS, *views, SCORING)
    with pytest.raises(EntityForgotten):
        pushed(till, 2)
    till.push([payment(2, "30T12:00", 3.0)], key="other")
    till.store.etl()
    assert till.trained([1, 2]) == [(None, 0, None, None), (3.0, 1, "web", 3.0)]


def test_a_damaged_file_of_pushed_rows_keeps_anybody_from_being_said_to_be_gone(till: Till) -> None:
    pushed(till, 1)
    (file,) = till.segments()
    content = file.read_bytes()
    for damaged in (content[:-8], content[:4] + bytes(40) + content[44:]):
        file.write_bytes(damaged)
        with pytest.raises(SourceUnreadable, match=rf"'payments', file .*{file.name}"):
            forgotten(till)
    file.write_bytes(content)
    assert len(forgotten(till).segments) == 1


def of_cards(name: str, dtype: str) -> tuple[Source, FeatureView]:
    """A source of clients with a column that is named like the key of cards, and a view of it."""
    columns = (PushedColumn("client", "int64"), PushedColumn("card", dtype))
    source = Source(name=name, pushed=(*columns, PushedColumn("at", "timestamp")), event_time="at")
    times = Aggregation(function="count", over="7d", name=f"{name}_7d")
    return source, FeatureView(name=name, entity="client", source=name, aggregations=(times,))


def test_a_forgotten_card_keeps_no_rows_of_clients_away(
    catalog: Catalog, admin: Actor, tmp_path: Path
) -> None:
    card = Entity(name="card", join_keys=(JoinKey("card", "uuid"),))
    views = (*of_cards("texts", "string"), *of_cards("numbers", "int64"))
    used = FeatureView(
        name="used", entity="card", source="texts", aggregations=views[1].aggregations
    )
    definitions = (CLIENT, card, *views, used)
    gone = "6f1c1a52-0000-4000-8000-000000000001"
    with opened_till(catalog, admin, tmp_path, *definitions) as till:

        def push(source: str, value: object) -> int:
            row = {"client": 1, "card": value, "at": "2026-01-30T12:00"}
            return till.push([row], key=f"{source} {value}", source=source).rows

        assert push("texts", "6f1c1a52-0000-4000-8000-000000000002") == 1
        store, folder = till.store, till.root / "training_sets"
        find = partial(find_entity, store.services, admin, folder, "card", {"card": gone})
        forget(store.services, admin, folder, find, everywhere=False)
        assert push("numbers", 7) == push("numbers", None) == 1
        with pytest.raises(EntityForgotten):
            push("texts", gone.upper())


def test_a_process_that_had_his_rows_in_memory_does_not_bring_them_back(till: Till) -> None:
    pusher = till.pusher()
    for key, client in (("a", 1), ("b", 2)):
        pusher.push(till.store.admin, "payments", [payment(client, "30T12:00")], key=key)
    forgotten(till)
    pusher.push(till.store.admin, "payments", [payment(2, "30T13:00")], key="c")
    assert till.online(1, 2) == [None, (2.0, 2, "web", 1.0)]
