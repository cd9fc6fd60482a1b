"""Views with a function: what SQL cannot say, checked at apply, computed bucket by bucket."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.show import show_view
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.offline import layout
from tests.unit.etl.store import Store, opened_store

DAY_US = 86_400_000_000
START_US = parse_instant("2026-01-01T00:00:00Z")
CLIENTS = 60


def sessions(rows: Any) -> Any:
    """A new session starts after a pause of more than a day."""
    import polars as pl

    pause = pl.col("event_time").diff().over("client") > pl.duration(days=1)
    session = pause.fill_null(value=True).cum_sum().over("client")
    return rows.with_columns(
        session=session.cast(pl.Int64),
        weight=pl.col("amount") / pl.col("amount").max().over("client"),
    )


CLIENT = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
VISITS = Source(name="visits", path="visits.parquet", event_time="seen_at")
SESSIONS = FeatureView(
    name="sessions",
    entity="client",
    source="visits",
    function=sessions,
    features=(
        Feature(name="session", dtype="int64", minimum=1),
        Feature(name="weight", dtype="float64"),
    ),
    ttl="30d",
    accuracy="exact",
)
SCORING = FeatureService(name="scoring", features=("sessions",))


@pytest.fixture(params=[2_000_000, 40], ids=["one-bucket", "many-buckets"])
def store(
    request: pytest.FixtureRequest,
    catalog: Catalog,
    admin: Actor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Store]:
    """Each client is seen on days 0, 1, 4, 5 and 9."""
    monkeypatch.setattr(layout, "ROWS_PER_BUCKET", request.param)
    seen = [(client, day) for client in range(CLIENTS) for day in (9, 0, 1, 4, 5)]
    clients, days = zip(*seen, strict=True)
    table = {
        "client": pa.array(clients),
        "seen_at": pa.array([START_US + day * DAY_US for day in days], pa.timestamp("us")),
        "amount": pa.array([float(day) for day in days]),
    }
    pq.write_table(pa.table(table), tmp_path / "visits.parquet")
    with opened_store(catalog, admin, tmp_path, now="2026-01-08T00:00:00Z") as store:
        yield store


def test_rows_of_an_entity_are_seen_together_and_in_order(store: Store) -> None:
    store.apply(CLIENT, VISITS, SESSIONS, SCORING)
    store.etl()
    days = (0, 1, 3, 4, 6)
    frame = pa.table(
        {
            "client": [7] * len(days) + [CLIENTS],
            "at": pa.array([START_US + d * DAY_US for d in (*days, 1)], pa.timestamp("us", "UTC")),
        }
    )
    built = store.training_set(frame).table
    assert built["session"].to_pylist() == [1, 1, 1, 2, 2, None]
    # The view sees all rows that it is given, those of the future too, so its weights do.
    assert built["weight"].to_pylist() == [0.0, 0.2, 0.2, 0.8, 1.0, None]
    assert store.online((7,), (59,)) == [(2, 1.0), (2, 1.0)]


def test_a_function_may_return_an_arrow_table(store: Store) -> None:
    body = str(SESSIONS.function).replace("return", "rows =")
    in_arrow = replace(SESSIONS, function=f"{body}    return rows.to_arrow()\n")
    store.apply(CLIENT, VISITS, in_arrow, SCORING)
    store.etl()
    assert store.online((7,), (59,)) == [(2, 1.0), (2, 1.0)]


def test_its_function_is_shown(store: Store) -> None:
    store.apply(CLIENT, VISITS, SESSIONS)
    with store.services.catalog.reading() as session:
        assert show_view(session, "sessions").code == SESSIONS.function


@pytest.mark.parametrize("name", ["bucket", "event_time", "created_time"])
def test_a_column_with_the_name_of_another_is_refused_with_its_name(
    store: Store, name: str
) -> None:
    file = store.services.root / "visits.parquet"
    table = pq.read_table(file)
    table = table.append_column("known", table["seen_at"]).append_column(name, table["seen_at"])
    pq.write_table(table, file)
    visits = Source(
        name="visits", path="visits.parquet", event_time="seen_at", created_time="known"
    )
    with pytest.raises(KonveyerError, match=f"'sessions' cannot be given column '{name}'"):
        store.check(CLIENT, visits, SESSIONS, SCORING)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("rows.nonsense", "AttributeError"),
        ("__import__('sys').exit('no')", "SystemExit: no"),
        ("exec('from polars.exceptions import PanicException as p; raise p(1)')", "PanicException"),
        ("rows.to_dict()", "returned dict"),
        ("rows.drop('client')", "returned no column 'client'"),
        ("rows", "returned no column 'session'"),
        ("rows.with_columns(session=rows['amount'], weight=1.0)", "'session' as double, not int64"),
    ],
)
def test_a_function_that_gives_something_else_is_refused_at_apply(
    store: Store, body: str, says: str
) -> None:
    view = FeatureView(
        name="bad",
        entity="client",
        source="visits",
        function=f"def f(rows):\n    return {body}\n",
        features=SESSIONS.features,
    )
    definitions: tuple[Definition, ...] = (CLIENT, VISITS, view)
    with pytest.raises(KonveyerError, match="'bad'") as caught:
        store.apply(*definitions)
    assert says in str(caught.value)
    assert caught.value.code == "python_view_failed"


def test_a_value_that_does_not_fit_is_told_with_its_column(store: Store) -> None:
    body = "rows.with_columns(session=pl.lit(2**63, pl.UInt64), weight=1.0)"
    view = FeatureView(
        name="large",
        entity="client",
        source="visits",
        function=f"def f(rows):\n    import polars as pl\n    return {body}\n",
        features=SESSIONS.features,
    )
    store.apply(CLIENT, VISITS, view)
    with pytest.raises(KonveyerError, match="'large' returned a 'session' that is no int64"):
        store.etl()


def test_a_column_that_the_source_lost_is_named_and_applying_again_does_without(
    store: Store,
) -> None:
    file = store.services.root / "visits.parquet"
    rows = pq.read_table(file)
    shops = rows.append_column("shop", pa.array(["a"] * len(rows)))
    pq.write_table(shops, file)
    store.apply(CLIENT, VISITS, SESSIONS, SCORING)
    pq.write_table(shops.append_column("new", pa.array([0] * len(rows))), file)
    store.etl()
    pq.write_table(rows, file)
    with pytest.raises(KonveyerError) as caught:
        store.etl()
    said = caught.value.message
    assert "Feature view 'sessions' was applied with other columns" in said
    assert "source 'visits', column 'shop' was string and is gone" in said
    store.apply(CLIENT, VISITS, SESSIONS, SCORING)
    store.etl()
    assert store.online((7,)) == [(2, 1.0)]


def test_rows_of_others_fail_the_run(store: Store) -> None:
    code = "def f(rows):\n    return rows.with_columns(client=rows['client'] + 1000, session=1, "
    view = FeatureView(
        name="sessions",
        entity="client",
        source="visits",
        function=code + "weight=1.0)\n",
        features=SESSIONS.features,
    )
    store.apply(CLIENT, VISITS, view, SCORING)
    with pytest.raises(KonveyerError, match=r"returned rows of \{'client': 10\d\d\}, of whom"):
        store.etl()


def test_a_function_that_fails_on_data_fails_the_run_and_publishes_nothing(store: Store) -> None:
    store.apply(CLIENT, VISITS, SESSIONS, SCORING)
    store.etl()
    before = store.online((7,))
    code = "def f(rows):\n    assert not len(rows), 'no data wanted'\n    "
    code += "return rows.with_columns(session=rows['client'], weight=rows['amount'])\n"
    view = FeatureView(
        name="sessions",
        entity="client",
        source="visits",
        function=code,
        features=SESSIONS.features,
        ttl="30d",
        accuracy="exact",
    )
    store.apply(CLIENT, VISITS, view, SCORING)
    with pytest.raises(KonveyerError, match="no data wanted"):
        store.etl()
    store.apply(CLIENT, VISITS, SESSIONS, SCORING)
    assert store.online((7,)) == before
