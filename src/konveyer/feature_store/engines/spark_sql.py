"""DuckDB's SQL in Spark's words, where the two mean the same."""

from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from konveyer.feature_store.engines.base import QueryFailed

# DuckDB reads the bytes of an MD5 from the right; 16 bits of them tell 65,536 buckets.
_LAST_16_BITS = "CAST(CONV(CONCAT(SUBSTR(MD5(x), 19, 2), SUBSTR(MD5(x), 17, 2)), 16, 10) AS BIGINT)"
_HEX = "REGEXP_REPLACE(LOWER(CAST(x AS STRING)), '[{}-]', '')"
_UUID = (
    f"CASE WHEN {_HEX} RLIKE '^[0-9a-f]{{32}}$' THEN "
    f"REGEXP_REPLACE({_HEX}, '^(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})$', '$1-$2-$3-$4-$5') "
    "WHEN x IS NOT NULL THEN "
    "RAISE_ERROR(CONCAT('This is no UUID: ', CAST(x AS STRING))) END"
)


def to_spark(sql: str, tables: Mapping[str, str] | None = None) -> str:
    """`sql`, which is of DuckDB's dialect, for Spark. Raises `QueryFailed` for what it cannot say.

    `tables` gives some of the tables other names.

    >>> to_spark("SELECT epoch_us(paid_at) AS paid_us FROM payments")
    'SELECT UNIX_MICROS(CAST(paid_at AS TIMESTAMP_NTZ)) AS paid_us FROM payments'
    """
    try:
        parsed = sqlglot.parse_one(sql, read="duckdb")
        for table in parsed.find_all(exp.Table):
            if tables and table.name in tables:
                table.set("this", exp.to_identifier(tables[table.name]))
        return parsed.transform(_translated).sql("spark", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        first = str(error).splitlines()[0]
        raise QueryFailed(
            f"Spark: this SQL has no translation: {first}",
            hint="use what both DuckDB and Spark have",
        ) from error


def _translated(node: exp.Expression) -> exp.Expression:
    match node:
        case exp.Mod(this=exp.Anonymous(this=str() as name, expressions=[text])) if (
            name.lower() == "md5_number_lower"
        ):
            bits = _filled(_LAST_16_BITS, text.transform(_translated))
            return exp.Mod(this=bits, expression=node.expression)
        case exp.Anonymous(this=str() as name, expressions=[instant]) if name.lower() == "epoch_us":
            return _filled("UNIX_MICROS(CAST(x AS TIMESTAMP_NTZ))", instant.transform(_translated))
        case exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.UUID)):
            return _filled(_UUID, value.transform(_translated))
        case exp.Concat(expressions=parts):
            # DuckDB takes values of any type, and leaves nulls out.
            texts = [exp.cast(part.transform(_translated), "text") for part in parts]
            nothing = exp.Literal.string("")
            return exp.Concat(
                expressions=[exp.Coalesce(this=t, expressions=[nothing.copy()]) for t in texts]
            )
        case _:
            return node


def _filled(template: str, value: exp.Expression) -> exp.Expression:
    """The Spark expression `template` with `value` for its x."""
    return sqlglot.parse_one(template, read="spark").transform(
        lambda node: value.copy() if isinstance(node, exp.Column) and node.name == "x" else node
    )
