"""Every mistake in a definition is one error with its code, found before anything is changed."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Aggregation
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.registry.check import Checked, check_definitions
from konveyer.feature_store.registry.discover import load_definitions
from konveyer.feature_store.registry.state import registry_state
from konveyer.feature_store.sources.kind import Places

GOOD = """
from konveyer import *
client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
events = Source(name="events", path="events.parquet", event_time="at")
spend = FeatureView(
    name="spend", entity="client", source="events",
    aggregations=(Aggregation(column="amount", function="sum", over="7d"),),
)
scoring = FeatureService(name="scoring", features=("spend",))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pq.write_table(
        pa.table(
            {
                "client_id": pa.array([1], pa.int64()),
                "at": pa.array([0], pa.timestamp("us")),
                "amount": pa.array([1.5]),
                "city": pa.array(["Oslo"]),
                "tags": pa.array([["a"]]),
                "place": pa.array([{"x": 1.0}]),
            }
        ),
        tmp_path / "events.parquet",
    )
    (tmp_path / "features").mkdir()
    return tmp_path


def compiled(root: Path, text: str) -> object:
    (root / "features" / "definitions.py").write_text(text)
    state = registry_state(load_definitions(root / "features"))
    engine = DuckDBEngine()
    try:
        return check_definitions(state, engine, Places(root=root))
    finally:
        engine.close()


def test_the_good_one_is_good(root: Path) -> None:
    assert compiled(root, GOOD)


@pytest.mark.parametrize(
    ("code", "before", "after"),
    [
        ("unknown_column", 'column="amount"', 'column="amuont"'),
        ("unknown_column", 'event_time="at"', 'event_time="happened"'),
        ("unknown_column", 'JoinKey("client_id"', 'JoinKey("klient_id"'),
        ("wrong_type", 'JoinKey("client_id", "int64")', 'JoinKey("client_id", "string")'),
        ("wrong_type", 'column="amount"', 'column="city"'),
        ("wrong_type", 'event_time="at"', 'event_time="amount"'),
        ("wrong_type", 'column="amount", function="sum"', 'column="tags", function="max"'),
        ("unsupported_type", 'column="amount", function="sum"', 'column="place", function="last"'),
        ("bad_definition", 'over="7d"', 'over="0d"'),
        ("bad_definition", 'over="7d"', 'over="-1d"'),
        ("bad_definition", 'over="7d"', 'over="a week"'),
        ("bad_definition", 'over="7d"', "over=7"),
        ("bad_definition", 'over="7d"', 'over="7d", where=3'),
        ("bad_definition", 'name="spend", ', "name=None, "),
        ("bad_definition", 'name="spend", ', 'name="spend", tags="risk", '),
        ("bad_definition", 'JoinKey("client_id", "int64"),', '"client_id",'),
        ("bad_definition", '(JoinKey("client_id", "int64"),)', 'JoinKey("client_id", "int64")'),
        ("bad_definition", 'features=("spend",)', 'features="spend"'),
        ("bad_definition", 'function="sum"', 'function="median"'),
        ("bad_definition", 'name="spend", ', 'name="Spend!", '),
        ("bad_definition", 'column="amount", ', ""),
        ("bad_definition", 'join_keys=(JoinKey("client_id", "int64"),)', "join_keys=()"),
        ("bad_definition", 'features=("spend",)', "features=()"),
        ("bad_definition", 'features=("spend",)', 'features=("spend", "spend")'),
        ("bad_definition", 'name="spend", ', 'name="spend", description=5, '),
        ("bad_definition", 'name="spend", ', 'name="spend", ttl="1d", '),
        ("feature_clash", 'column="amount", ', 'column="amount", name="client_id", '),
        ("feature_clash", 'features=("spend",)', 'features=("spend:amount_sum_7d as client_id",)'),
        ("bad_definition", 'source="events",', 'source="events", sql="SELECT 1",'),
        ("unknown_reference", 'entity="client"', 'entity="klient"'),
        ("unknown_reference", 'source="events"', 'source="event"'),
        ("unknown_reference", 'features=("spend",)', 'features=("spent",)'),
        ("unknown_reference", 'features=("spend",)', 'features=("spend:amount_sum_8d",)'),
        ("feature_clash", 'features=("spend",)', 'features=("spend", "spend:amount_sum_7d")'),
        ("source_file_missing", "events.parquet", "missing.parquet"),
        ("sql_invalid", 'path="events.parquet"', 'sql="SELECT FROM WHERE"'),
        ("sql_invalid", 'path="events.parquet"', 'sql="DROP TABLE x"'),
        ("sql_invalid", 'path="events.parquet"', 'sql="SELECT 1; SELECT 2"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="amount >"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="amuont > 1"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="EXISTS (FROM \'events.parquet\')"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="1 = ANY(ARRAY(SELECT 1 FROM events))"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="amount > 1) OR (amount < 2"'),
        ("sql_invalid", 'over="7d"', 'over="7d", where="unnest([1, 2]) = 1"'),
        ("wrong_type", 'over="7d"', 'over="7d", where="client_id"'),
        ("wrong_type", 'over="7d"', 'over="7d", where="city"'),
        ("unknown_reference", 'path="events.parquet"', 'sql="SELECT * FROM nowhere"'),
        ("definition_cycle", 'path="events.parquet"', 'sql="SELECT * FROM events"'),
        ("definitions_unreadable", "from konveyer import *", "from konveyer import Nothing"),
        ("definitions_unreadable", 'name="client"', 'nmae="client"'),
        ("definitions_unreadable", "from konveyer import *", "from konveyer import (*"),
        ("definitions_unreadable", "from konveyer import *", "raise SystemExit(3)"),
        ("definitions_unreadable", 'name="spend", ', r'name="spend", owner="\ud800", '),
        ("definitions_unreadable", 'over="7d"', r'over="7d", where="city = \'\ud800\'"'),
    ],
)
def test_a_mistake_has_its_code_and_the_next_step(
    root: Path, code: str, before: str, after: str
) -> None:
    assert before in GOOD
    with pytest.raises(KonveyerError) as caught:
        compiled(root, GOOD.replace(before, after, 1))
    assert caught.value.code == code, caught.value
    assert caught.value.hint


def test_a_value_of_another_type_is_named_with_its_field() -> None:
    with pytest.raises(KonveyerError, match="Aggregation 'seen' has values='Oslo'") as caught:
        Aggregation(function="count", over="7d", name="seen", by="city", values="Oslo")  # type: ignore[arg-type]
    assert caught.value.hint == "give it a tuple of text"


def test_a_definition_where_its_name_belongs_is_answered_with_the_name(root: Path) -> None:
    with pytest.raises(KonveyerError, match="Feature view 'spend' has entity=") as caught:
        compiled(root, GOOD.replace('entity="client"', "entity=client"))
    assert caught.value.hint == "give it text: 'client'"


def test_a_list_is_as_good_as_a_tuple() -> None:
    many: Any = ["Oslo", "Bergen"]
    seen = Aggregation(function="count", over="7d", name="seen", by="city", values=many)
    assert seen.values == ("Oslo", "Bergen")
    assert hash(seen)


@pytest.mark.parametrize("limit", ["minimum=0", "nullable=False"])
def test_an_on_demand_feature_has_no_limits(root: Path, limit: str) -> None:
    view = (
        "def rounded(amount):\n    return {'whole': amount // 1}\n"
        "now = OnDemandView(name='now', function=rounded, request=(RequestField('amount', "
        "'float64'),), features=(Feature(name='whole', dtype='float64'%s),))\n"
    )
    assert compiled(root, GOOD + view % "")
    with pytest.raises(KonveyerError, match="'whole': limits are checked by ETL") as caught:
        compiled(root, GOOD + view % f", {limit}")
    assert caught.value.code == "bad_definition"


ON_DEMAND = """
def doubled({field}):
    return {{"{feature}": {field}}}
{name} = OnDemandView(
    name="{name}", function=doubled, request=(RequestField("{field}", "{dtype}"),),
    features=(Feature(name="{feature}", dtype="float64"),),
)
"""


@pytest.mark.parametrize(
    ("field", "dtype", "code", "message"),
    [
        ("price", "float64", None, ""),
        ("client_id", "int64", None, ""),
        ("client_id", "string", "feature_clash", "'client_id' is string in 'later', and int64"),
        ("price", "int64", "feature_clash", "'price' is int64 in 'later', and float64"),
        ("spent", "float64", "feature_clash", "feature 'spent' from 'spend', and 'later'"),
        ("late", "float64", "feature_clash", "feature 'late' from 'later', and 'later'"),
    ],
)
def test_what_callers_send_is_a_column_of_a_label_frame_beside_keys_and_features(
    root: Path, field: str, dtype: str, code: str | None, message: str
) -> None:
    now = ON_DEMAND.format(name="now", field="price", dtype="float64", feature="twice")
    later = ON_DEMAND.format(name="later", field=field, dtype=dtype, feature="late")
    services = 'features=("spend:amount_sum_7d as spent", "now", "later")'
    text = GOOD.replace("scoring =", now + later + "scoring =")
    text = text.replace('features=("spend",)', services)
    if code is None:
        assert compiled(root, text)
        return
    with pytest.raises(KonveyerError, match=message) as caught:
        compiled(root, text)
    assert caught.value.code == code
    assert caught.value.hint


def test_inputs_of_on_demand_views_bring_their_join_keys(root: Path) -> None:
    text = GOOD.replace(
        "scoring =",
        'other = Entity(name="other", join_keys=(JoinKey("client_id", "string"),))\n'
        'visits = FeatureView(name="visits", entity="other", source="events", '
        'aggregations=(Aggregation(function="count", over="7d", name="visits"),))\n'
        "def whole(visits):\n    return {'all': visits}\n"
        "total = OnDemandView(name='total', function=whole, inputs=('visits:visits',), "
        "features=(Feature(name='all', dtype='float64'),))\n"
        "scoring =",
    ).replace('features=("spend",)', 'features=("spend", "total")')
    with pytest.raises(KonveyerError, match="join key 'client_id' is int64 in one view") as caught:
        compiled(root, text)
    assert caught.value.code == "feature_clash"


def test_sql_says_when_its_rows_became_known_where_its_source_does(root: Path) -> None:
    known = GOOD.replace('event_time="at"', 'event_time="at", created_time="at"')
    view = (
        'last = FeatureView(name="last", entity="client", features=(Feature(name="amount", '
        'dtype="float64"),), sql="SELECT client_id, events.at AS event_time, amount "\n'
        '"FROM events"{})\n'
    )
    with pytest.raises(KonveyerError, match="source 'events' says in 'at' when") as caught:
        compiled(root, known + view.format(""))
    assert caught.value.hint
    assert "select at AS created_time" in caught.value.hint
    assert compiled(root, known + view.format(", as_known=False"))
    said = view.format("").replace("amount ", "events.at AS created_time, amount ")
    assert compiled(root, known + said)


BETWEEN = """
from konveyer import *
client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
events = Source(name="events", path="events.parquet", event_time="at", created_time="at")
once = Source(name="once", sql="SELECT * FROM events", event_time="at")
again = Source(name="again", sql="SELECT * FROM {}", event_time="at"{})
view = FeatureView(name="view", entity="client", {})
"""
SUMMED = 'source="again", aggregations=(Aggregation(column="amount", function="sum", over="7d"),)'
SELECTED = (
    'sql="SELECT client_id, again.at AS event_time, amount FROM again", '
    'features=(Feature(name="amount", dtype="float64"),)'
)


@pytest.mark.parametrize("read", ["events", "once"])
@pytest.mark.parametrize("view", [SUMMED, SELECTED], ids=["aggregations", "SQL"])
def test_sql_between_a_view_and_its_source_keeps_when_rows_became_known(
    root: Path, view: str, read: str
) -> None:
    with pytest.raises(KonveyerError, match="source 'again' has no created_time") as caught:
        compiled(root, BETWEEN.format(read, "", view))
    assert "reads 'events', which says in 'at'" in str(caught.value)
    assert compiled(root, BETWEEN.format(read, "", view + ", as_known=False"))
    if view is SUMMED:
        assert compiled(root, BETWEEN.format(read, ', created_time="at"', view))


@pytest.mark.parametrize("end", [";", " -- of all", ";  -- of all", " /* of all */\n"])
def test_sql_may_end_in_a_semicolon_or_a_comment(root: Path, end: str) -> None:
    sql = f"SELECT client_id, events.at AS event_time, amount FROM events{end}"
    view = (
        "last = FeatureView(name='last', entity='client', features=(Feature(name='amount', "
        f"dtype='float64'),), sql={sql!r})\n"
        f"again = Source(name='again', sql={sql!r}, event_time='event_time')\n"
    )
    checked = compiled(root, GOOD + view)
    assert isinstance(checked, Checked)
    assert checked.views["last"].rows_sql.endswith("events")


def test_a_common_table_expression_may_have_the_name_of_what_it_reads(root: Path) -> None:
    sql = "WITH events AS (SELECT * FROM events) SELECT * FROM events"
    text = GOOD + f'again = Source(name="again", sql="{sql}", event_time="at")\n'
    checked = compiled(root, text)
    assert isinstance(checked, Checked)
    assert [source.name for source in checked.state.sources_of((Kind.SOURCE, "again"))] == [
        "events"
    ]


def test_sources_that_read_each_other(root: Path) -> None:
    text = GOOD + (
        'a = Source(name="a", sql="SELECT * FROM b")\nb = Source(name="b", sql="SELECT * FROM a")\n'
    )
    with pytest.raises(KonveyerError, match="a -> b -> a") as caught:
        compiled(root, text)
    assert caught.value.code == "definition_cycle"


@pytest.mark.parametrize("same_file", [True, False])
def test_one_name_for_two_things(root: Path, same_file: bool) -> None:
    more = 'other = Source(name="events", path="other.parquet")\n'
    if not same_file:
        (root / "features" / "more.py").write_text("from konveyer import *\n" + more)
        more = ""
    with pytest.raises(KonveyerError, match="events") as caught:
        compiled(root, GOOD + more)
    assert caught.value.code == "duplicate_definition"


def test_the_error_names_the_file_and_the_line(root: Path) -> None:
    with pytest.raises(KonveyerError, match=r"definitions\.py:7: "):
        compiled(root, GOOD.replace('over="7d"', 'over="x"'))


def test_a_definitions_folder_that_is_not_there(root: Path) -> None:
    with pytest.raises(KonveyerError, match="does not exist") as caught:
        load_definitions(root / "feature")
    assert caught.value.hint == "did you mean 'features'?"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("карта", "наличные"), ["карта"]),
        (("card", "!!!"), ["!!!"]),
        (("gift card", "gift-card"), ["gift card", "gift-card"]),
    ],
)
def test_values_that_name_no_feature_of_their_own(
    values: tuple[str, ...], named: list[str]
) -> None:
    with pytest.raises(KonveyerError) as caught:
        Aggregation(function="count", over="7d", name="paid", by="kind", values=values)
    assert caught.value.code == "bad_definition"
    assert all(f"'{one}'" in caught.value.message for one in named)
    condition = f"CAST(\"kind\" AS VARCHAR) = '{named[-1]}'"
    assert f"where={condition!r}" in (caught.value.hint or "")
