"""Each function of SQL that Spark is given means what it means in DuckDB, also at the edges."""

import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlglot

from konveyer.feature_store.engines.base import Engine, QueryFailed
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.engines.spark import SparkEngine
from konveyer.feature_store.engines.spark_functions import SAME
from konveyer.feature_store.engines.spark_sql import to_spark

pytestmark = pytest.mark.spark

MOMENTS = (
    *("2026-01-31T23:59:59.999999", "2024-02-29T00:00:00", None, "1969-12-31T12:30:15.5"),
    *("2026-12-28T10:00:00", "2025-01-01T01:02:03", "2021-01-03T04:05:06.007", None),
    "1900-03-01T00:00:00",
)
LATER = (
    *("2026-03-01T00:00:00", "2025-02-28T12:00:00", "2020-01-01T00:00:00", None),
    *("2026-12-27T23:00:00", "2024-12-30T00:00:00", "2021-01-04T00:00:00", None),
    "1970-01-01T00:00:00",
)
NAN = float("nan")
CENTS = ("1.25", "-2.50", None, "0.00", "99.99", "2.35", None, "-0.01", "3.00")
LISTS: Any = ([1, 2, 2], [3, None], None, [], [None], [5, -1, 5], [2], [0, 1, 2, 3], [7])
WORDS: Any = (["a", "b"], ["b", None, "a"], None, [], [""], ["c", "a"], ["z"], ["x"], [None])


def moments(texts: Sequence[str | None]) -> list[datetime | None]:
    return [None if text is None else datetime.fromisoformat(text) for text in texts]


def days(texts: Sequence[str | None]) -> list[date | None]:
    return [None if moment is None else moment.date() for moment in moments(texts)]


ROWS = pa.table(
    {
        "r": range(9),
        "g": [1, 1, 1, 2, 2, 2, 3, 3, 4],
        "i": pa.array([7, -7, None, 0, 3, -1, None, None, 5], pa.int32()),
        "n": pa.array([10, -3, 4, None, 0, 2**40, None, 1, -5], pa.int64()),
        "x": [2.5, -2.5, None, 0.0, NAN, 3.7, None, -0.4, 1e17],
        "y": [1.0, 4.0, 9.5, None, 2.0, -3.25, None, 8.0, 0.1],
        "p": [1.0, 2.5, 0.5, 3.0, 100.0, 7.25, 0.001, 12.0, 1.0],
        "s": ["abcab", " a b ", None, "", "Ünï.e", "e\u0301x,y", "ab\\b", "12", "\u3000A%_b\n"],
        "z": ["b", "a", None, "", "ab", ",", "b", "1", "a"],
        "t": pa.array(moments(MOMENTS), pa.timestamp("us")),
        "u": pa.array(moments(LATER), pa.timestamp("us")),
        "d": days(MOMENTS),
        "e": days(LATER),
        "b": [True, False, None, True, None, False, None, None, True],
        "c": [False, False, True, None, None, True, None, True, True],
        "m": [None if cents is None else Decimal(cents) for cents in CENTS],
        "l": pa.array(LISTS, pa.list_(pa.int64())),
        "w": pa.array(WORDS, pa.list_(pa.string())),
    }
)

VALUES = """
abs(x); acos(0.5); asin(0.5); atan(y); atan2(y, p); cbrt(y); ceil(y); floor(y); cos(y); cosh(i)
cot(p); degrees(y); exp(i); greatest(i, n); greatest(x, y, p); greatest(s, z); least(x, y)
least(d, e); isnan(x); ln(x); log(x); log10(x); log2(x); log(2, x); pi(); pow(x, 2); 2 ** i
radians(y); round(y, 1); round(m, 1); round(n, -1); round(y); sign(x); sign(i); sin(y); sinh(i)
sqrt(x); tan(y); tanh(y); trunc(y); i // 2; n // -3; n % -3; mod(n, 3); x % 2; i / 2; m / 3
b AND c; b OR c; CASE i WHEN 7 THEN 'a' WHEN NULL THEN 'c' ELSE 'b' END; coalesce(i, n, 0)
EXISTS (SELECT 1 FROM f AS h WHERE h.n = f.i); if(NULL, 1, 2); nullif(x, x); ifnull(i, 3)
xor(i, 3); i & 6; ascii(s); chr(97); concat(s, i, b); concat_ws(z, s, 'q'); contains(s, z)
ends_with(s, z); starts_with(s, z); hex(s); hex(n); left(s, i); left(s, -2); right(s, i)
right(s, -2); length(s); lower(s); upper(s); upper(z); md5(s); sha1(s); sha256(s)
lpad(s, 4, '*'); rpad(s, 8, 'xy'); regexp_extract(s, 'a(b)'); regexp_extract(s, 'a(b)', 1)
regexp_extract_all(s, 'a(b)'); regexp_matches(s, 'a.b'); s ~ 'b'; repeat(s, 2); repeat(s, -1)
regexp_replace(s, 'b', 'X', 'g'); replace(s, 'a', 'zz'); replace(s, '', '-'); split(s, 'b')
string_split(s, '.'); split_part(s, 'b', 2); split_part(s, 'b', -1); strpos(s, z); instr(s, '')
substr(s, i); substr(s, 2, 3); substr(s, -2); translate(s, 'ab', 'x'); trim(s); ltrim(s); rtrim(s)
trim(s, 'ab'); s LIKE '%b%'; s LIKE z || '%'; s ILIKE 'A%'; s LIKE 'A$%%' ESCAPE '$'; s IN ('12')
CAST(y AS INTEGER); TRY_CAST(s AS INTEGER); TRY_CAST(z AS BIGINT); CAST(' 12 ' AS INTEGER)
TRY_CAST(s AS DOUBLE); TRY_CAST(300 AS TINYINT); CAST(i AS BOOLEAN); CAST(b AS DOUBLE)
CAST(m AS VARCHAR); CAST(t AS VARCHAR); CAST(t AS DATE); CAST(d AS TIMESTAMP)
CAST('2026-01-02 03:04:05+03' AS TIMESTAMPTZ); t::TIMESTAMPTZ; TRY_CAST(s AS DATE)
CAST(y AS DECIMAL(10, 2)); CAST(y AS FLOAT); CAST(l AS DOUBLE[])
date_diff('day', t, u); date_diff('month', t, u); date_diff('quarter', d, e)
date_diff('year', t, u); date_diff('hour', t, u); date_diff('millisecond', t, u)
make_date(2026, 1, 2); make_timestamp(2026, 1, 2, 3, 4, 5.5); date_trunc('week', t)
date_trunc('month', d::DATE); date_trunc('hour', t); day(t); dayofmonth(t); dayofweek(t)
isodow(t); dayofyear(t); extract(week FROM u); extract(doy FROM t); extract(quarter FROM t); hour(t)
minute(t); second(t); month(t); quarter(t); year(d); week(u); weekofyear(t); last_day(t); epoch(t)
epoch_us(t); strftime(t, '%Y-%m-%d %H:%M:%S'); strftime(d, '%d.%m.%y')
strftime(t, '%A, %-d %b %I %p'); strptime('02.01.2026', '%d.%m.%Y'); to_timestamp(n)
to_timestamp(y); epoch_ms(n); t + INTERVAL 1 DAY; t - INTERVAL 3 MONTH; t + i * INTERVAL 1 DAY
x > y; y <= p; s < z; s >= z; i = n; i <> 3; n IS DISTINCT FROM i; n IS NOT DISTINCT FROM i
b IS TRUE; c IS NULL; NOT b; i BETWEEN 0 AND 5; i IN (7, NULL); i NOT IN (7, 0); i | 3; ~i
-y; i * n; i - n; CAST((md5_number(s) >> 64) & 65535 AS INTEGER); regexp_matches(chr(13), '.')
regexp_extract(s, '[^a-c&-]+'); regexp_replace(s, '(?:b|\\w)+c', 'X', 'g'); s ~ '[.\\]]e|\\(|x\\z'
strptime('5 Jan 2026', '%-d %b %Y'); strptime('05.01.2026 03:04 PM', '%d.%m.%Y %I:%M %p')
strptime('2026-01-05 03', '%Y-%m-%d %I'); strptime('05.2026', '%m.%Y')
regexp_replace(s, 'b\\z|\\\\z|e\\z', 'X', 'g'); regexp_replace(s, '[\\pL ]+|\\p{Nd}', 'X', 'g')
regexp_replace(s, '^[ab]*', 'X', 'g'); regexp_replace(s, '^', 'X', 'g')
regexp_extract_all(s, 'b*')
d + 1; t > DATE '2025-01-01'; [i, n]; list_append(l, 4); list_prepend(4, l); list_concat(l, [1])
l[1]; l[3]; l[99]; [i, n][2]
list_filter(l, lambda v: v > 1); list_max(l); list_min(w); array_length(l); list_sort(w)
list_sort(l, 'DESC'); list_transform(l, lambda v: v + 1); struct_pack(a := i).a
row_number() OVER (PARTITION BY g ORDER BY i DESC, r); rank() OVER (ORDER BY x)
dense_rank() OVER (ORDER BY i); percent_rank() OVER (ORDER BY r); cume_dist() OVER (ORDER BY r)
ntile(4) OVER (ORDER BY r DESC); lag(i, 2, 0) OVER (ORDER BY r); lead(i) OVER (ORDER BY r)
lag(i IGNORE NULLS) OVER (ORDER BY r); nth_value(i, 2) OVER (PARTITION BY g ORDER BY r)
first_value(i) OVER (PARTITION BY g ORDER BY r); first(i) OVER (PARTITION BY g ORDER BY r)
last_value(i IGNORE NULLS) OVER (PARTITION BY g ORDER BY r)
last(i) OVER (PARTITION BY g ORDER BY r); arg_max(i, r) OVER (PARTITION BY g)
last(i) OVER w; first_value(s) OVER w
sum(y) OVER (ORDER BY r ROWS BETWEEN 2 PRECEDING AND CURRENT ROW); mean(y) OVER (PARTITION BY g)
count(*) OVER (PARTITION BY g ORDER BY u RANGE BETWEEN INTERVAL 30 DAY PRECEDING AND CURRENT ROW)
"""
AGGREGATES = """
any_value(g); arg_max(i, r); arg_max(s, x); arg_min(i, y); max_by(s, t) FILTER (WHERE i > 0)
min_by(i, r); avg(i); mean(y) FILTER (WHERE b); bit_and(i); bit_or(n); bit_xor(i); count(*)
count(DISTINCT s); count(DISTINCT i) FILTER (WHERE b); count(DISTINCT (i, s)); count_if(b)
count_if(i > 0) FILTER (WHERE c); covar_pop(y, p); covar_samp(y, p); bool_and(b); bool_or(i > 0)
max(x); min(s); max(t)
median(x); median(i); quantile_cont(y, 0.25); quantile_cont(x, 0.9) FILTER (WHERE r > 0); min(b)
stddev(y); stddev_pop(y); stddev_samp(y); variance(y); var_pop(y); sum(i); sum(m); sum(DISTINCT i)
sum(y) FILTER (WHERE r > 100); sum(i) / nullif(count(i), 0); max(b) FILTER (WHERE c)
"""
# Spark cannot optimize these beside DISTINCT.
TEXTS_OF_ROWS = "string_agg(s, ',' ORDER BY i, r)"
DISTINCT_TEXTS = "string_agg(DISTINCT z, ',' ORDER BY z)"
ALL = "\n".join((VALUES, AGGREGATES, TEXTS_OF_ROWS, DISTINCT_TEXTS))
GROUPED = "SELECT {} FROM f GROUP BY g ORDER BY g"
REFUSED = """
list(i ORDER BY r); list(i); array_agg(s); regexp_replace(s, 'b', 'X'); kurtosis(y); skewness(y)
regexp_replace(s, 'b', '\\1', 'g'); regexp_replace(s, 'B', 'X', 'gi'); regexp_matches(s, 'B', 'i')
regexp_matches(s, 'b$'); list_distinct(l); list_contains(l, 1); array_position(l, 1); mode(i)
array_to_string(w, ','); flatten([l]); first(i); last(i ORDER BY r); string_agg(s, ',')
quantile(y, 0.5); quantile_disc(y, 0.5); percentile_cont(0.5) WITHIN GROUP (ORDER BY y)
approx_quantile(y, 0.5); approx_count_distinct(i); corr(y, p); regr_slope(y, p); bit_count(i)
date_diff('week', t, u); date_trunc('decade', t); extract(dow FROM t); strftime(t, '%j')
strftime(t, '%Y-%m-%dT%H'); t AT TIME ZONE 'Europe/Moscow'; CAST(t AS TIME); CAST(s AS BLOB)
hash(s); weekday(t); dayname(t); date_part('day', t); typeof(i); format('{}', s); printf('%s', s)
reverse(s); unicode(s); chr(8364); levenshtein(s, z); url_encode(s); split(s, ''); split(s, z)
split_part(s, '', 1); substr(s, 0, 3); substr(s, 2, -1); substr(s, i, 2); s LIKE 'A\\%'; range(i)
json_extract(s, '$.a'); random(); list_intersect(l, [1]); arg_max(i, r, 2); min_by(i, r, 2)
arg_max(DISTINCT i, r); arg_min(i, r ORDER BY n); count_if(DISTINCT b)
list_transform(l, lambda v, k: v + k); list_filter(l, (v, k) -> k > 1); x = ANY(l); x = ANY([x])
i > ALL(SELECT 1); i IN (SELECT n FROM f); i IN l; s SIMILAR TO 'a.*'; s GLOB 'a*'; l[1:2]
l[-1]; l[i]; l[0]
s LIKE ANY (['a%']); i >> 2; i << 2; strptime(s, '%d.%m.%y')
strptime(s, '%H:%M'); strptime(s, '%d.%m'); strftime(t, '%-y'); strftime(t, '%-f')
strftime(t, '[%Y]'); strftime(t, '{%Y}'); strftime(t, '#%Y')
regexp_matches(s, '[[:alpha:]]'); s ~ z; regexp_extract(s, '[a-z&&[^b]]'); s ~ '[a[b]]'
regexp_replace(s, '(?i)B', 'X', 'g'); s ~ '\\bc'; s ~ '\\v'; regexp_extract_all(s, z)
first(i) OVER v; last(i) OVER (PARTITION BY g); last(i) FILTER (WHERE b)
regexp_replace(s, 'b*', 'X', 'g')
regexp_replace(s, 'b|', 'X', 'g'); regexp_replace(s, '(a?)+\\z', 'X', 'g')
regexp_replace(s, '\\z', 'X', 'g'); regexp_replace(s, '\\Eb', 'X', 'g')
"""


def expressions(text: str) -> list[str]:
    return [sql.strip() for line in text.splitlines() for sql in line.split(";") if sql.strip()]


@pytest.mark.parametrize(
    ("text", "select"),
    [
        (VALUES, "SELECT {} FROM f WINDOW w AS (PARTITION BY g ORDER BY r) ORDER BY r"),
        (AGGREGATES, GROUPED),
        (TEXTS_OF_ROWS, GROUPED),
        (DISTINCT_TEXTS, GROUPED),
    ],
)
def test_functions_mean_the_same(spark: SparkEngine, text: str, select: str) -> None:
    named = [f"{sql} AS v{place}" for place, sql in enumerate(expressions(text))]
    duckdb = DuckDBEngine()
    expected, found = (
        columns(engine, select.format(", ".join(named))) for engine in (duckdb, spark)
    )
    duckdb.close()
    different = {
        sql: (one, other)
        for sql, one, other in zip(named, expected, found, strict=True)
        if not alike(one, other)
    }
    assert different == {}


def test_every_function_that_is_let_through_is_tested() -> None:
    parsed = [sqlglot.parse_one(sql, read="duckdb") for sql in expressions(ALL)]
    tested = {type(node) for tree in parsed for node in tree.walk()}
    # Only `unnest`, which gives other rows, has a test of its own.
    assert {kind.__name__ for kind in SAME - tested} == {"Explode", "Unnest"}


@pytest.mark.parametrize("sql", expressions(REFUSED))
def test_functions_that_mean_something_else_are_refused(sql: str) -> None:
    with pytest.raises(QueryFailed, match=r"no translation: .* mean the same") as caught:
        to_spark(f"SELECT {sql} AS v FROM f")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sql", "hint"),
    [
        ("extract(epoch FROM t)", "write epoch(t)"),
        ("extract(isodow FROM t)", "write isodow(t)"),
        ("date_add(t, INTERVAL 1 DAY)", "write t + INTERVAL 1 DAY"),
        ("n::UBIGINT", "write BIGINT"),
        ("reverse(s)", "use what both DuckDB and Spark have"),
    ],
)
def test_a_refusal_says_what_to_write_where_that_is_known(sql: str, hint: str) -> None:
    with pytest.raises(QueryFailed, match="no translation") as caught:
        to_spark(f"SELECT {sql} AS v FROM f")
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    "sql",
    [
        *("upper('Straße')", "lower('ΑΣ')", "TRY_CAST('1e3' AS INTEGER)"),
        *("CAST('2026-05' AS DATE)", "DATE '2026'", "TRY_CAST('2026/05/01' AS DATE)"),
        *("TRY_CAST('2026-05-01T10' AS TIMESTAMP)", "TRY_CAST('2026-05-01 ' AS TIMESTAMPTZ)"),
        *("TRY_CAST('2026-05-01 soon' AS DATE)", "TRY_CAST('epoch' AS DATE)"),
        *("TRY_CAST('2026-05-01 01:02Z' AS TIMESTAMP)", "s[1]"),
    ],
)
def test_texts_that_spark_would_read_otherwise_are_refused(spark: SparkEngine, sql: str) -> None:
    with spark.session() as session:
        session.attach_table("f", ROWS)
        with pytest.raises(QueryFailed, match="Spark"):
            session.query(f"SELECT {sql} AS v FROM f")


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMPTZ"])
def test_texts_are_the_same_moments_or_none(spark: SparkEngine, kind: str) -> None:
    texts = (
        *("2026-05", "2026", "2026-5", "20260501", " 2026", "10:30", "soon", "", "+2026-05-01"),
        *("2026-5-1", "2026-05-01", "2026-02-30", "2026-13-01", "0001-01-01", "9999-12-31"),
        *("2026-05-01 10:30", "2026-05-01T1:2:3", "2026-05-01T23:59:59.5Z"),
        *("2026-05-01 01:02:03.123456789+03", "2026-05-01T23:00:00-05:30"),
    )
    rows = " UNION ALL ".join(f"SELECT '{text}' AS s" for text in texts)
    sql = f"SELECT s, TRY_CAST(s AS {kind}) AS v FROM ({rows}) AS texts ORDER BY s"
    duckdb = DuckDBEngine()
    assert columns(spark, sql) == columns(duckdb, sql)
    duckdb.close()


def test_rows_of_lists_are_the_same_and_an_outer_join_of_them_is_refused(
    spark: SparkEngine,
) -> None:
    duckdb = DuckDBEngine()
    for rows in ("r, unnest(l) AS v FROM f", "r, v FROM f, unnest(l) AS h(v)"):
        sql = f"SELECT {rows} ORDER BY r, v"
        assert columns(spark, sql) == columns(duckdb, sql)
    duckdb.close()
    with pytest.raises(QueryFailed, match=r"outer join with unnest"):
        to_spark("SELECT r, v FROM f LEFT JOIN unnest(l) AS h(v) ON true")


def columns(engine: Engine, sql: str) -> list[list[Any]]:
    with engine.session() as session:
        session.attach_table("f", ROWS)
        found = session.query(sql).columns
    # As microseconds: those far away are no moments in Python.
    moments = [pa.types.is_timestamp(column.type) for column in found]
    return [
        (column.cast(pa.int64()) if is_moment else column).to_pylist()
        for column, is_moment in zip(found, moments, strict=True)
    ]


def alike(one: Any, other: Any) -> bool:
    """The same value, of whatever width its type is; fractions to their last digits."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    numbers = (int, float, Decimal)
    if not isinstance(one, numbers) or not isinstance(other, numbers) or isinstance(one, bool):
        return type(one) is type(other) and bool(one == other)
    one, other = float(one), float(other)
    return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
