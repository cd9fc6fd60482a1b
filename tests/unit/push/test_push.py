"""Pushed rows land online at once and offline in the same history, exactly once for each key."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import (
    Aggregation,
    Entity,
    Feature,
    FeatureView,
    JoinKey,
    PushedColumn,
    Source,
)
from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock, parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.training_set import entity_frame
from konveyer.feature_store.etl.flow import EtlFailed
from konveyer.feature_store.etl.landing import PushedValueRefused
from konveyer.feature_store.online.base import OnlineStoreUnavailable, Record
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.push.accept import Push, Pusher
from konveyer.feature_store.push.errors import (
    BadIdempotencyKey,
    IdempotencyKeyReused,
    PushedRowsInvalid,
    PushNotOnline,
)
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.feature_store.sources.pushes import note_not_online
from tests.online_stores import InterruptedStore
from tests.unit.push.till import (
    CLIENT,
    DEFINITIONS,
    NEWEST,
    NOW,
    PAYMENTS,
    SCORING,
    SPEND,
    Till,
    opened_till,
    payment,
)


@pytest.fixture
def till(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Till]:
    with opened_till(catalog, admin, tmp_path) as till:
        yield till


def test_rows_are_online_at_once_and_in_the_next_training_set(till: Till) -> None:
    first = till.push([payment(1, "31T12:00", 5.0), payment(2, "31T13:00", 7.0)], key="a")
    assert first == Push(
        source="payments",
        number=1,
        rows=2,
        arrived_us=parse_instant(NOW),
        online=("newest", "spend"),
    )
    assert till.online(1, 2, 3) == [(5.0, 1, "web", 5.0), (7.0, 1, "web", 7.0), None]

    till.push([payment(1, "31T14:00", 6.0, "branch")], key="b")
    assert till.online(1, 2) == [(11.0, 2, "branch", 6.0), (7.0, 1, "web", 7.0)]

    till.store.etl()
    (run,) = till.runs("spend")
    assert (run.rows, run.last_push) == (3, 2)
    assert till.online(1, 2) == [(11.0, 2, "branch", 6.0), (7.0, 1, "web", 7.0)]
    assert till.trained([1, 2]) == till.online(1, 2)

    till.push([payment(1, "20T00:00", 100.0)], key="c")
    assert till.online(1) == [(11.0, 3, "branch", 6.0)], "a late row is not in the window"
    till.push([payment(1, "31T14:00", 8.0, "web")], key="d")
    assert till.online(1) == [(19.0, 4, "web", 8.0)], "of one moment, the later arrival wins"
    till.store.etl()
    assert till.trained([1, 2]) == till.online(1, 2)


def test_the_same_key_and_rows_give_the_same_answer_and_other_rows_an_error(till: Till) -> None:
    rows = [payment(1, "31T12:00", 5.0)]
    first = till.push(rows, key="a")
    till.push(rows, key="b")
    again = till.push(pa.Table.from_pylist([{**rows[0], "paid_at": _at("31T12:00")}]), key="a")
    assert again == first
    with pytest.raises(IdempotencyKeyReused) as caught:
        till.push([payment(1, "31T12:00", 6.0)], key="a")
    assert (caught.value.code, caught.value.status) == ("idempotency_key_reused", 409)
    assert "push 1" in caught.value.message
    assert till.online(1) == [(10.0, 2, "web", 5.0)]
    assert [row.number for row in till.pushes()] == [1, 2]
    assert len(till.kept()) == 2
    for key in ("", "x" * 256, "\udcff"):
        with pytest.raises(BadIdempotencyKey):
            till.push(rows, key=key)


def _at(text: str) -> Any:
    return pa.scalar(parse_instant(f"2026-01-{text}"), pa.timestamp("us", tz="UTC")).as_py()


def test_whole_numbers_beyond_a_double_meet_their_limits(till: Till) -> None:
    meters = Source(
        name="meters",
        pushed=(
            PushedColumn("client", "int64"),
            PushedColumn("read_at", "timestamp"),
            PushedColumn("reading", "int64", minimum=0.5, maximum=2**60),
        ),
        event_time="read_at",
    )
    till.store.apply(CLIENT, meters)
    row = {"client": 1, "read_at": "2026-01-31T12:00:00Z"}
    till.push([{**row, "reading": 1}, {**row, "reading": 2**60}], key="a", source="meters")
    for reading, problem in ((2**60 + 1, "is above the maximum"), (0, "0 is below the minimum")):
        with pytest.raises(PushedRowsInvalid, match=problem):
            till.push([{**row, "reading": reading}], key="b", source="meters")


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ({"amount": "5"}, "amount", "'5' is not float64"),
        ({"amount": True}, "amount", "True is not float64"),
        ({"amount": 2**53 + 1}, "amount", "9007199254740993 is not float64"),
        ({"amount": -1}, "amount", "-1.0 is below the minimum 0"),
        ({"amount": 1000.5}, "amount", "1000.5 is above the maximum 1000"),
        ({"client": 1.0}, "client", "1.0 is not int64"),
        ({"client": 2**63}, "client", "9223372036854775808 is not int64"),
        ({"client": None}, "client", "a join key is null"),
        ({"paid_at": None}, "paid_at", "the event time is null"),
        ({"paid_at": "soon"}, "paid_at", "'soon' is not a time"),
        ({"paid_at": 1.5e9}, "paid_at", "1500000000.0 is not timestamp"),
        ({"paid_at": "2026-01-01T00:00:00.1234567"}, "paid_at", "is not timestamp"),
        ({"paid_at": "2026-02-01T00:00:06Z"}, "paid_at", "2026-02-01T00:00:06Z is later than now"),
        ({"shop": "kiosk"}, "shop", "'kiosk' is not one of web, branch"),
        ({"shop": "\ud800"}, "shop", "surrogates not allowed"),
        ({"shp": "web"}, "shp", "the source has no such column"),
    ],
)
def test_a_bad_row_refuses_the_push_with_its_row_and_column(
    till: Till, row: dict[str, Any], column: str, problem: str
) -> None:
    rows = [payment(1, "31T12:00"), {**payment(2, "31T12:00"), **row}]
    with pytest.raises(PushedRowsInvalid) as caught:
        till.push(rows, key="a")
    assert f"row 2, column '{column}'" in caught.value.message
    assert problem in caught.value.message
    assert caught.value.status == 422
    assert (till.pushes(), till.segments(), till.online(1)) == ([], [], [None])


@pytest.mark.parametrize("number", ["card-7", "6f9619ff8b86d011b42d00cf4fc964ff", ""])
@pytest.mark.parametrize("accuracy", ["exact", "snapshot"])
def test_a_key_that_is_no_uuid_refuses_the_push(till: Till, number: str, accuracy: Any) -> None:
    """No run of the view would come to its end any more: a push cannot be taken back."""
    taps = Source(
        name="taps",
        pushed=(PushedColumn("card", "string"), PushedColumn("tapped_at", "timestamp")),
        event_time="tapped_at",
    )
    tapped = FeatureView(
        name="tapped",
        entity="card",
        sql="SELECT card, tapped_at AS event_time, created_time, hour(tapped_at) AS hour FROM taps"
        + (" GROUP BY ALL" if accuracy == "snapshot" else ""),
        features=(Feature(name="hour", dtype="int64"),),
        accuracy=accuracy,
    )
    card = Entity(name="card", join_keys=(JoinKey("card", "uuid"),))
    till.store.apply(card, taps, tapped)
    good = {"card": "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "tapped_at": "2026-01-31T12:00:00Z"}
    with pytest.raises(PushedRowsInvalid, match=r"'taps', row 2, column 'card': .* is no UUID"):
        till.push([good, {**good, "card": number}], key="a", source="taps")
    assert till.pushes() == []
    till.push([good], key="a", source="taps")
    till.store.etl()


def test_every_bad_row_is_told_at_once(till: Till) -> None:
    rows = [payment(1, "31T12:00", -1.0), payment(None, "31T12:00"), {"client": 3}, "x"]
    with pytest.raises(PushedRowsInvalid) as caught:
        till.push(rows, key="a")
    told = caught.value.detail["problems"]
    assert isinstance(told, list)
    assert {(one["row"], one["column"]) for one in told} == {
        (3, "paid_at"),
        (3, "amount"),
        (3, "shop"),
        (4, ""),
    }
    with pytest.raises(PushedRowsInvalid) as caught:
        till.push(rows[:2], key="a")
    told = caught.value.detail["problems"]
    assert isinstance(told, list)
    assert [(one["row"], one["column"]) for one in told] == [(1, "amount"), (2, "client")]


# What pandas says of how Arrow reads its times.
@pytest.mark.filterwarnings("ignore:Series.values returning an ndarray")
def test_frames_are_taken_as_they_are(till: Till) -> None:
    pandas = pytest.importorskip("pandas")
    times = [_at("31T12:00"), _at("31T13:00")]
    columns = {"client": [1, 2], "paid_at": times, "amount": [1, 2], "shop": ["web", None]}
    answers = [till.push(pl.DataFrame(columns), key="a")]
    frame = pandas.DataFrame(columns)
    frame["shop"] = frame["shop"].astype("category")
    assert str(frame["paid_at"].dtype).startswith("datetime64")
    answers.append(till.push(frame, key="a"))
    answers.append(till.push(pa.table(columns).cast(pa.schema(_NARROW)), key="a"))
    assert answers[0].rows == 2
    assert answers == [answers[0]] * 3


_NARROW = [
    ("client", pa.int16()),
    ("paid_at", pa.timestamp("s", tz="Europe/Oslo")),
    ("amount", pa.float32()),
    ("shop", pa.large_string()),
]


TEXTS = pa.array([b"web", b"w\xffb"])
# As Arrow and Parquet files have them: reading one checks no text.
NOT_UTF8 = pa.Array.from_buffers(pa.string(), len(TEXTS), TEXTS.buffers())


@pytest.mark.parametrize(
    ("column", "values", "row", "problem"),
    [
        ("client", pa.array([1, 2.5]), 1, "it is double, not int64"),
        ("client", pa.array(["1", "2"]), 1, "it is string, not int64"),
        ("client", pa.array([1, 2**64 - 1], pa.uint64()), 1, "it is uint64, not int64"),
        ("amount", pa.array([1, 2**53 + 1]), 2, "9007199254740993"),
        ("paid_at", pa.array([0, 1_001], pa.timestamp("ns")), 2, "lose data"),
        ("shop", pa.array([["web"], ["web"]]), 1, "not string"),
        ("shop", NOT_UTF8, 2, "not UTF-8"),
        ("shop", NOT_UTF8.cast(pa.large_string()), 2, "not UTF-8"),
        ("shop", pa.DictionaryArray.from_arrays([0, 1], NOT_UTF8), 1, "not UTF-8"),
        ("paid_at", pa.array([0, 2**60], pa.timestamp("us")), 2, "not in the years 1 to 9999"),
        ("paid_at", pa.array([0, -(2**60)], pa.timestamp("us")), 2, "not in the years 1 to 9999"),
    ],
)
def test_a_bad_table_is_refused_with_row_and_column(
    till: Till, column: str, values: pa.Array, row: int, problem: str
) -> None:
    rows = {"client": [1, 2], "paid_at": [_at("31T12:00")] * 2, "amount": [1, 2]}
    table = pa.table({**rows, "shop": ["web", "web"], column: values})
    with pytest.raises(PushedRowsInvalid) as caught:
        till.push(table, key="a")
    assert f"row {row}, column '{column}'" in caught.value.message
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("source", "code", "status"),
    [("payment", "source_not_found", 404), ("refunds", "source_not_pushed", 409)],
)
def test_what_cannot_be_pushed_to(till: Till, source: str, code: str, status: int) -> None:
    refunds = Source(name="refunds", sql="SELECT * FROM payments", event_time="paid_at")
    till.store.apply(*DEFINITIONS, refunds)
    with pytest.raises(KonveyerError) as caught:
        till.push([payment(1, "31T12:00")], key="a", source=source)
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.hint


def test_training_does_not_see_a_row_before_it_came(till: Till) -> None:
    till.push([payment(1, "30T12:00", 5.0)], key="a", now="2026-01-31T12:00:00Z")
    till.store.etl()
    assert till.trained([1], at="2026-01-31T11:59:59Z") == [(None, 0, None, None)]
    assert till.trained([1], at="2026-01-31T12:00:00Z") == [(5.0, 1, "web", 5.0)]


def test_a_time_that_is_none_or_finer_than_ours_is_refused_with_row_and_column(till: Till) -> None:
    pandas = pytest.importorskip("pandas")
    for time in (pandas.NaT, pandas.Timestamp("2026-01-31T12:00:00.000000001")):
        with pytest.raises(PushedRowsInvalid, match=r"row 1, column 'paid_at': .* not timestamp"):
            till.push([{**payment(1, None), "paid_at": time}], key="a")
    whole = pandas.Timestamp("2026-01-31T12:00:00.000001")
    till.push([{**payment(1, None), "paid_at": whole}], key="a")
    assert [row["paid_at"] for row in till.kept()] == [whole.to_pydatetime().replace(tzinfo=UTC)]


@pytest.mark.parametrize(
    "rows",
    [
        5,
        "rows",
        {"client": [1, 2], "paid_at": [1]},
        {"client": np.array([1j])},
        pa.Table.from_arrays([[1]], schema=pa.schema([pa.field(b"\xff", pa.int64())])),
        iter([{}]),
    ],
)
def test_what_is_no_rows(till: Till, rows: Any) -> None:
    with pytest.raises(PushedRowsInvalid):
        till.push(rows, key="a")


def test_a_column_that_is_there_twice(till: Till) -> None:
    table = pa.table([pa.array([1])] * 2, names=["client", "client"])
    with pytest.raises(PushedRowsInvalid, match="column 'client': it is there more than once"):
        till.push(table, key="a")


def test_only_some_may_push(till: Till) -> None:
    rows = [payment(1, "31T12:00")]
    for role in Role:
        actor = Actor("he", frozenset({role}))
        if role in (Role.DATA_ENGINEER, Role.PRODUCER, Role.ADMINISTRATOR):
            assert till.pusher().push(actor, "payments", rows, key=str(role)).number
        else:
            with pytest.raises(NotAllowed):
                till.pusher().push(actor, "payments", rows, key=str(role))


def test_a_dry_run_looks_and_keeps_nothing(till: Till) -> None:
    pusher, rows = till.pusher(), [payment(1, "31T12:00")]
    done = pusher.push(till.store.admin, "payments", rows, key="a", dry_run=True)
    assert (done.number, done.rows, done.online) == (0, 1, ("newest", "spend"))
    with pytest.raises(PushedRowsInvalid):
        pusher.push(till.store.admin, "payments", [{}], key="a", dry_run=True)
    assert (till.pushes(), till.segments(), till.online(1)) == ([], [], [None])


def test_one_process_goes_on_after_a_run(till: Till) -> None:
    pusher, admin = till.pusher(), till.store.admin
    for number in range(1, 5):
        rows = [payment(1, f"3{number % 2}T12:00", float(number))]
        pusher.push(admin, "payments", rows, key=f"{number}")
        if number % 2:
            till.store.etl()
    assert till.online(1) == [(10.0, 4, "web", 3.0)]


def test_limits_of_a_view_count_the_new_rows_in(till: Till) -> None:
    spent = Aggregation(column="amount", function="sum", over="7d", name="spent", maximum=10)
    last = Feature(name="last_amount", dtype="float64", minimum=1)
    views = replace(SPEND, aggregations=(spent,)), replace(NEWEST, features=(last,))
    for accuracy in ("exact", "snapshot"):
        newest = replace(views[1], accuracy=accuracy)
        scoring = replace(SCORING, features=("spend",))
        till.store.apply(CLIENT, PAYMENTS, views[0], newest, scoring)
        with pytest.raises(PushedValueRefused, match="is below the minimum 1"):
            till.push([payment(1, "31T12:00", 0.5)], key=f"small {accuracy}")
    till.push([payment(1, "31T12:00", 6.0)], key="a")
    till.store.etl()
    till.push([payment(1, "31T13:00", 3.0)], key="b")
    with pytest.raises(PushedValueRefused) as caught:
        till.push([payment(2, "31T13:00", 1.0), payment(1, "31T14:00", 2.0)], key="c")
    assert caught.value.code == "pushed_value_refused"
    assert "'spend', feature 'spent': 11.0 is above the maximum 10" in caught.value.message
    assert till.online(1, 2) == [(9.0,), None]
    assert len(till.pushes()) == 2
    till.push([payment(1, "20T14:00", 9.0)], key="d")
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(9.0,)]


def test_a_version_that_a_release_reads_gets_its_rows_too(till: Till) -> None:
    till.store.etl()
    with till.store.services.catalog.reading() as session:
        before = resolve_service(session, active_state(session), "scoring")
        (old,) = [(view.name, view.version) for view in before.views if view.name == "spend"]
    changed = replace(SPEND, aggregations=SPEND.aggregations[:1])
    till.store.apply(CLIENT, PAYMENTS, changed, NEWEST, SCORING)
    services, clock = till.store.services, FeatureClock(parse_instant(NOW))
    lookup = OnlineLookup(before, services.online, clock)
    rows = [payment(1, "31T12:00")]
    till.push(rows, key="nobody holds it")
    assert lookup.rows([(1,)]) == [(None, 0, None, 1.0)]
    pusher = Pusher(services, clock, held=lambda _session: [old])
    assert pusher.push(till.store.admin, "payments", rows, key="b").online == ("newest", "spend")
    assert lookup.rows([(1,)]) == [(2.0, 2, "web", 1.0)]
    assert till.online(1) == [(2.0, 1.0)]


def test_a_view_with_other_sources_waits_for_its_first_run(till: Till) -> None:
    at = pa.array([_at("01T00:00")])
    rows = {"client": [1], "at": at, "refunded": [3.0]}
    pq.write_table(pa.table(rows), till.root / "refunds.parquet")
    refunds = Source(name="refunds", path="refunds.parquet", event_time="at")
    both = Source(
        name="both",
        sql="SELECT client, paid_at, created_time, amount, shop FROM payments UNION ALL "
        'SELECT client, "at", "at", refunded, \'web\' FROM refunds',
        event_time="paid_at",
        created_time="created_time",
    )
    spend = replace(SPEND, source="both")
    scoring = replace(SCORING, features=("spend",))
    till.store.apply(CLIENT, PAYMENTS, refunds, both, spend, scoring)
    assert till.push([payment(1, "31T12:00", 5.0)], key="a").online == ()
    assert till.online(1) == [None]
    till.store.etl()
    assert till.online(1) == [(5.0, 2, "web")]
    assert till.push([payment(1, "31T13:00", 6.0)], key="b").online == ("spend",)
    assert till.online(1) == [(11.0, 3, "web")]
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(11.0, 3, "web")]


class _Away(MemoryOnlineStore):
    """An online store that is away while `is_away`."""

    is_away = False

    def put(self, space: str, records: Iterable[Record], *, even_older: bool = False) -> None:
        if self.is_away:
            raise OnlineStoreUnavailable("It does not answer.")
        super().put(space, records, even_older=even_older)


def test_a_push_while_the_online_store_is_away_is_kept_and_lands_later(till: Till) -> None:
    online = _Away()
    till = Till(replace(till.store, services=replace(till.store.services, online=online)))
    online.is_away = True
    for _ in range(2):
        with pytest.raises(PushNotOnline) as caught:
            till.push([payment(1, "31T12:00", 5.0)], key="a")
        assert (caught.value.code, caught.value.status) == ("push_not_online", 503)
    assert len(till.pushes()) == 1
    with pytest.raises(PushNotOnline, match="Push 2 is kept"):
        till.push([payment(2, "31T12:00", 7.0)], key="b")
    with pytest.raises(PushNotOnline, match="Push 2 is kept"):
        till.push([payment(2, "31T12:00", 7.0)], key="b")
    with pytest.raises(PushedRowsInvalid):
        till.push([payment(None, "31T12:00")], key="c")
    assert [row["client"] for row in till.kept()] == [1, 2]
    online.is_away = False
    assert till.push([payment(1, "31T12:00", 5.0)], key="a").online == ("newest", "spend")
    assert till.online(1, 2) == [(5.0, 1, "web", 5.0), (7.0, 1, "web", 7.0)]
    assert all(row.is_online for row in till.pushes())


class _Damaged:
    """A push whose segment cannot be read until it is mended."""

    def __init__(self, till: Till) -> None:
        self.till, self.content = till, b""

    def __call__(self) -> None:
        self.till.push([payment(1, "31T12:00", 2.0)], key="b")
        segment = self.till.segments()[-1]
        self.content = segment.read_bytes()
        segment.write_bytes(b"PAR1")

    def mend(self) -> None:
        self.till.segments()[-1].write_bytes(self.content)


@pytest.mark.parametrize("again", [False, True])
def test_what_a_run_undid_online_and_could_not_put_back_lands_with_the_next_push(
    till: Till, again: bool
) -> None:
    online = InterruptedStore()
    till = Till(replace(till.store, services=replace(till.store.services, online=online)))
    till.push([payment(1, "31T12:00", 1.0)], key="a")
    till.store.etl()
    damaged = _Damaged(till)
    online.before_put = damaged
    with pytest.raises(EtlFailed, match=r"What was pushed while .* 'payments', file"):
        (till.store.publish if again else till.store.etl)("spend")
    run, first = till.runs("spend")
    assert (run.status, first.status) == ("succeeded", "succeeded")
    assert run.error is not None
    assert run.error["code"] == "pushes_not_online"
    assert till.online(1) == [(1.0, 1, "web", 2.0)]

    damaged.mend()
    till.push([payment(2, "31T12:00", 3.0)], key="c")
    assert till.online(1, 2) == [(3.0, 2, "web", 2.0), (3.0, 1, "web", 3.0)]
    assert [(row.is_online, row.online) for row in till.pushes()] == [
        (True, ["newest", "spend"])
    ] * 3


def test_a_first_run_that_cannot_put_online_what_was_pushed_meanwhile_has_failed(
    till: Till,
) -> None:
    online = InterruptedStore()
    till = Till(replace(till.store, services=replace(till.store.services, online=online)))
    till.push([payment(1, "31T12:00", 1.0)], key="a")
    damaged = _Damaged(till)
    online.before_put = damaged
    with pytest.raises(EtlFailed, match=r"What was pushed while .* 'payments', file"):
        till.store.etl("spend")
    (run,) = till.runs("spend")
    assert run.status == "failed"
    damaged.mend()
    till.store.etl("spend")
    assert [run.status for run in till.runs("spend")] == ["succeeded", "failed"]
    assert till.online(1) == [(3.0, 2, "web", 2.0)]


@pytest.mark.parametrize("has_footer", [False, True])
def test_what_cannot_land_again_keeps_no_other_source_from_it(till: Till, has_footer: bool) -> None:
    other = replace(PAYMENTS, name="refunds")
    till.store.apply(*DEFINITIONS, other)
    till.push([payment(1, "31T12:00", 1.0)], key="a")
    content = till.segments()[-1].read_bytes()
    damaged = content[:4] + bytes(40) + content[44:] if has_footer else b"PAR1"
    till.segments()[-1].write_bytes(damaged)
    with till.store.services.catalog.transaction() as session:
        note_not_online(session, ["payments"], after=0)
    assert till.push([payment(1, "31T12:00", 2.0)], key="b", source="refunds").number == 2
    assert [row.is_online for row in till.pushes()] == [False, True]
    with pytest.raises(PushNotOnline, match="Push 1 is kept"):
        till.push([payment(1, "31T12:00", 1.0)], key="a")


def test_a_push_names_the_file_whose_rows_of_before_are_damaged(till: Till) -> None:
    till.push([payment(1, "31T12:00", 1.0)], key="a")
    content = till.segments()[-1].read_bytes()
    till.segments()[-1].write_bytes(content[:4] + bytes(40) + content[44:])
    with pytest.raises(KonveyerError, match=r"'payments', file .*\.parquet: ") as caught:
        till.push([payment(1, "31T12:00", 2.0)], key="b")
    assert caught.value.code == "source_unreadable"
    assert len(till.pushes()) == 1


def test_a_table_that_came_while_another_was_published_again_has_its_own_pushes(till: Till) -> None:
    online = InterruptedStore()
    till = Till(replace(till.store, services=replace(till.store.services, online=online)))
    for key in "abc":
        till.push([payment(1, "31T12:00", 1.0)], key=key)
        if key == "a":
            till.store.etl()
        elif key == "b":
            online.before_put = till.store.etl
            till.store.publish("spend")
            assert [run.last_push for run in till.runs("spend")] == [2, 2, 1]
        assert till.online(1)[0][1] == "abc".index(key) + 1


def test_at_a_cadence_nobody_is_known_before_a_row_of_his_arrived(till: Till) -> None:
    till.push([payment(1, "05T12:00")], key="a", now="2026-01-06T00:00:00Z")
    till.push([payment(2, "05T12:00")], key="b", now="2026-01-20T00:00:00Z")
    till.store.etl()
    services = till.store.services
    with entity_frame(
        services.catalog,
        services.engine,
        services.offline,
        service="scoring",
        moments_us=np.array([parse_instant(f"2026-01-{day}") for day in ("10", "25")]),
        staging=services.places.staging,
    ) as found:
        assert isinstance(found, pa.Table)
        assert found["client"].to_pylist() == [1, 1, 2]
