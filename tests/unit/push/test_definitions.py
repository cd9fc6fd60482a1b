"""Sources that rows are pushed to: what `apply` accepts, refuses and shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from konveyer import (
    Aggregation,
    Feature,
    FeatureService,
    FeatureView,
    OnDemandView,
    PushedColumn,
    RequestField,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.search import search_features
from konveyer.feature_store.datamart.show import show_view
from konveyer.feature_store.definitions.definition import Kind, to_spec
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.registry.errors import FeatureClash
from konveyer.feature_store.registry.lookup import active_state
from konveyer.feature_store.registry.tables import DefinitionRow
from tests.unit.push.till import (
    CLIENT,
    DEFINITIONS,
    NEWEST,
    PAYMENTS,
    SCORING,
    SPEND,
    Till,
    opened_till,
    payment,
)

AT = PushedColumn("at", "timestamp")


@pytest.fixture
def till(catalog: Catalog, admin: Actor, tmp_path: Path) -> Iterator[Till]:
    with opened_till(catalog, admin, tmp_path) as till:
        yield till


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"pushed": (AT,)}, "has event_time None"),
        ({"pushed": (AT,), "event_time": "a"}, "its timestamps are: at"),
        ({"pushed": (AT, AT), "event_time": "at"}, "'at' more than once"),
        ({"pushed": (AT,), "event_time": "at", "created_time": "at"}, "moment of arrival"),
        ({"pushed": (AT,), "event_time": "at", "path": "a.parquet"}, "give one of them"),
        ({"pushed": (AT,), "event_time": "at", "columns": {"at": "timestamp"}}, "does not take"),
    ],
)
def test_a_bad_source(arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(BadDefinition, match=problem):
        Source(name="clicks", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("created_time", "timestamp"), "column created_time of its own"),
        (("n", "decimal"), "has type 'decimal'"),
    ],
)
def test_a_bad_column(arguments: tuple[str, str], problem: str) -> None:
    with pytest.raises(BadDefinition, match=problem):
        PushedColumn(*arguments)
    with pytest.raises(BadDefinition, match="only numbers have limits"):
        PushedColumn("shop", "string", minimum=1)
    with pytest.raises(BadDefinition, match="only string"):
        PushedColumn("n", "int64", one_of=("a",))
    with pytest.raises(BadDefinition, match="swap them"):
        PushedColumn("n", "int64", minimum=2, maximum=1)


def exact(sql: str) -> FeatureView:
    """A SQL view that shall show pushed rows at once."""
    return replace(NEWEST, name="wanted", sql=sql, as_known=False)


ROWS = "SELECT client, paid_at AS event_time, amount AS last_amount FROM payments"
REFUSED = {
    "SELECT client, max(paid_at) AS event_time, sum(amount) AS last_amount FROM payments "
    "GROUP BY client": "GROUP BY",
    f"{ROWS} JOIN refunds USING (client)": "a join",
    f"SELECT a.* FROM ({ROWS}) AS a, refunds": "a join",
    f"SELECT DISTINCT * FROM ({ROWS})": "DISTINCT",
    f"{ROWS} LIMIT 3": "LIMIT",
    f"{ROWS} UNION {ROWS}": "UNION without ALL",
    f"{ROWS} EXCEPT {ROWS}": "EXCEPT",
    "SELECT client, paid_at AS event_time, lag(amount) OVER (PARTITION BY client ORDER BY paid_at) "
    "AS last_amount FROM payments": "a window function",
    f"{ROWS} WHERE amount > (SELECT avg(amount) FROM payments)": "a subquery",
    f"WITH a AS (SELECT DISTINCT * FROM ({ROWS})) SELECT * FROM a": "DISTINCT",
    ROWS.replace("payments", "totals"): "'totals' has GROUP BY",
}
REFUNDS = Source(name="refunds", path="refunds.parquet", event_time="at")
TOTALS = Source(
    name="totals",
    sql="SELECT client, max(paid_at) AS paid_at, sum(amount) AS amount FROM payments GROUP BY 1",
    event_time="paid_at",
)


@pytest.mark.parametrize("sql", REFUSED)
def test_what_cannot_land_at_once_is_refused_as_exact_and_taken_as_snapshot(
    till: Till, sql: str
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = pa.array([0], pa.timestamp("us", tz="UTC"))
    rows = pa.table({"client": [1], "at": at, "refunded": [1.0]})
    pq.write_table(rows, till.root / "refunds.parquet")
    view = exact(sql)
    with pytest.raises(KonveyerError) as caught:
        till.store.apply(*DEFINITIONS, REFUNDS, TOTALS, view)
    assert caught.value.code == "cannot_land_at_once"
    assert REFUSED[sql] in caught.value.message
    till.store.apply(*DEFINITIONS, REFUNDS, TOTALS, replace(view, accuracy="snapshot"))
    assert till.push([payment(1, "31T12:00")], key="a").online == ("newest", "spend")


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT * FROM ({ROWS}) AS inner_rows WHERE last_amount > 0 ORDER BY 1",
        f"WITH a AS ({ROWS}) SELECT * FROM a UNION ALL SELECT * FROM a WHERE false",
        f'{ROWS} UNION ALL SELECT client, max("at"), sum(refunded) FROM refunds GROUP BY 1',
    ],
)
def test_what_can(till: Till, sql: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = pa.array([0], pa.timestamp("us", tz="UTC"))
    rows = pa.table({"client": [2], "at": at, "refunded": [3.0]})
    pq.write_table(rows, till.root / "refunds.parquet")
    scoring = replace(SCORING, features=("wanted",))
    till.store.apply(CLIENT, PAYMENTS, REFUNDS, exact(sql), scoring)
    till.store.etl()
    till.push([payment(1, "31T12:00", 5.0), payment(2, "31T12:00", 6.0)], key="a")
    assert till.online(1, 2) == [(5.0,), (6.0,)]
    till.store.etl()
    assert till.online(1, 2) == till.trained([1, 2]) == [(5.0,), (6.0,)]


def test_a_function_cannot_be_exact(till: Till) -> None:
    view = FeatureView(
        name="doubled",
        entity="client",
        source="payments",
        function="def f(rows):\n    return rows.with_columns(twice=rows['amount'] * 2)\n",
        features=(Feature(name="twice", dtype="float64"),),
        accuracy="exact",
    )
    with pytest.raises(KonveyerError, match="all rows of an entity"):
        till.store.apply(*DEFINITIONS, view)
    till.push([payment(1, "31T12:00", 5.0)], key="a")
    scoring = replace(SCORING, features=("doubled",))
    daily = replace(view, accuracy="snapshot")
    till.store.apply(CLIENT, PAYMENTS, SPEND, NEWEST, daily, scoring)
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(10.0,)]


def test_a_view_shows_what_is_pushed_to_it(till: Till) -> None:
    with till.store.services.catalog.reading() as session:
        (source,) = show_view(session, "newest").sources
    assert (source.kind, source.reads) == (
        "pushed",
        "client int64, paid_at timestamp, amount float64, shop string",
    )
    assert source.columns["created_time"] == "timestamp"


def test_columns_come_and_go_and_keep_their_type(till: Till) -> None:
    till.push([payment(1, "30T12:00", 5.0)], key="a")
    client, paid_at, amount, _shop = PAYMENTS.pushed
    city = PushedColumn("city", "string")
    changed = replace(PAYMENTS, pushed=(client, paid_at, city, amount))
    last = Aggregation(column="city", function="last", over="unbounded", name="city")
    spend = replace(SPEND, aggregations=(*SPEND.aggregations[:2], last))
    scoring = replace(SCORING, features=("spend",))
    till.store.apply(CLIENT, changed, spend, scoring)
    row = payment(1, "31T12:00", 6.0)
    del row["shop"]
    till.push([{**row, "city": "Oslo"}], key="b")
    assert till.online(1) == [(11.0, 2, "Oslo")]
    till.store.etl()
    assert till.online(1) == till.trained([1]) == [(11.0, 2, "Oslo")]
    other = replace(PAYMENTS, pushed=(client, paid_at, PushedColumn("amount", "string")))
    with pytest.raises(KonveyerError, match="was double in rows that were pushed") as caught:
        till.store.apply(CLIENT, other)
    assert caught.value.code == "wrong_type"


def doubled(amount):  # type: ignore[no-untyped-def]
    return {"twice": amount * 2}


def test_a_service_of_before_its_rule_stops_nothing_and_can_be_corrected(till: Till) -> None:
    now = OnDemandView(
        name="now",
        function=doubled,
        request=(RequestField("amount", "float64"),),
        features=(Feature(name="twice", dtype="float64"),),
    )
    clashing = FeatureService(name="later", features=("spend:spent as amount", "now"))
    with pytest.raises(FeatureClash):
        till.store.apply(*DEFINITIONS, now, clashing)
    till.store.apply(*DEFINITIONS, now)
    with till.store.services.catalog.transaction() as session:
        versions = active_state(session).versions
        reads = [(Kind.VIEW, "spend"), (Kind.ON_DEMAND, "now")]
        row = DefinitionRow(
            kind=str(Kind.SERVICE),
            name="later",
            version="0123456789ab",
            spec=to_spec(clashing),
            reads={f"{kind}:{name}": versions[kind, name] for kind, name in reads},
            compiled=None,
            active=True,
            created_us=0,
            created_by="admin",
        )
        session.add(row)
    assert till.push([payment(1, "31T12:00")], key="a").rows == 1
    till.store.etl()
    assert till.trained([1]) == [(1.0, 1, "web", 1.0)]
    corrected = replace(clashing, features=("spend:spent as paid", "now"))
    till.store.apply(*DEFINITIONS, now, corrected)
    with till.store.services.catalog.reading() as session:
        assert search_features(session, "spent")
        assert active_state(session).service("later") == corrected
