"""DuckDB's SQL in Spark's words, where the two mean the same."""

import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from konveyer.feature_store.engines.base import QueryFailed
from konveyer.feature_store.engines.spark_functions import difference, instead

# DuckDB reads the bytes of an MD5 from the right. These are the lowest 16 bits of its upper half,
# which tell 65,536 buckets: a bucket's number needs no more of `md5_number(x) >> 64`.
_LAST_16_BITS = "CAST(CONV(CONCAT(SUBSTR(MD5(x), 19, 2), SUBSTR(MD5(x), 17, 2)), 16, 10) AS BIGINT)"
_HEX = "REGEXP_REPLACE(LOWER(CAST(x AS STRING)), '[{}-]', '')"
_UUID = (
    f"CASE WHEN {_HEX} RLIKE '^[0-9a-f]{{32}}$' THEN "
    f"REGEXP_REPLACE({_HEX}, '^(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})$', '$1-$2-$3-$4-$5') "
    "WHEN x IS NOT NULL THEN "
    "RAISE_ERROR(CONCAT('This is no UUID: ', CAST(x AS STRING))) END"
)

# DuckDB rounds, Spark cuts off.
_ROUNDED = (
    "CASE WHEN TYPEOF(x) IN ('double', 'float') THEN {cast}(RINT(CAST(x AS DOUBLE)) AS {kind}) "
    "WHEN TYPEOF(x) LIKE 'decimal%' THEN {cast}(ROUND(CAST(x AS DECIMAL(38, 18))) AS {kind}) "
    "WHEN TYPEOF(x) = 'string' AND CAST(x AS STRING) RLIKE '{other}' THEN "
    "RAISE_ERROR(CONCAT('Spark does not read this text as a whole number: ', CAST(x AS STRING))) "
    "ELSE {cast}(x AS {kind}) END"
)
_WHOLE = {
    exp.DataType.Type.TINYINT: "TINYINT",
    exp.DataType.Type.SMALLINT: "SMALLINT",
    exp.DataType.Type.INT: "INT",
    exp.DataType.Type.BIGINT: "BIGINT",
}
# DuckDB multiplies and then rounds, Spark rounds what a fraction is written as: 1.005 differs.
_DECIMAL = (
    "CASE WHEN TYPEOF(x) = 'double' AND ABS(CAST(x AS DOUBLE) * 1E{scale}D) < 9E18D THEN "
    "{cast}({cast}(ROUND(CAST(x AS DOUBLE) * 1E{scale}D) AS BIGINT){unit} AS {kind}) "
    "ELSE {cast}(x AS {kind}) END"
)
_UNIT = " * CAST('1E-{scale}' AS DECIMAL({scale}, {scale}))"
# With more digits after the point Spark's product would have fewer.
_MOST_SCALE = 17
_NO_FRACTIONS = {
    *_WHOLE,
    exp.DataType.Type.BOOLEAN,
    exp.DataType.Type.DATE,
    exp.DataType.Type.TEXT,
    exp.DataType.Type.TIMESTAMP,
    exp.DataType.Type.UUID,
}
# Fractions that are written with an exponent, and those that are no number, are other texts.
_TEXT = (
    "CASE WHEN TYPEOF(x) IN ('double', 'float') AND CAST(x AS STRING) RLIKE '[EIN]' THEN "
    "RAISE_ERROR(CONCAT('Spark writes this fraction as another text: ', CAST(x AS STRING))) "
    "ELSE CAST(x AS STRING) END"
)
_MOMENTS = {
    exp.DataType.Type.DATE: "DATE",
    exp.DataType.Type.TIMESTAMP: "TIMESTAMP_NTZ",
    exp.DataType.Type.TIMESTAMPNTZ: "TIMESTAMP_NTZ",
    exp.DataType.Type.TIMESTAMPTZ: "TIMESTAMP_LTZ",
}
# Spark takes 2026-05 for a day, and any text behind one; DuckDB takes 2026/05/01, and words.
_MOMENT = (
    "CASE WHEN TYPEOF(x) = 'string' AND NOT CAST(x AS STRING) RLIKE same THEN "
    "IF(CAST(x AS STRING) RLIKE otherwise, RAISE_ERROR(CONCAT("
    "'Spark does not read this text as a date or time: ', CAST(x AS STRING))), NULL) "
    "ELSE {cast}(x AS {kind}) END"
)
_SAME_MOMENT = (
    r"\A[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T]([01]?[0-9]|2[0-3]):[0-5]?[0-9]"
    r"(:[0-5]?[0-9]([.][0-9]{1,9})?(Z|[+-](0[0-9]|1[0-4])(:[0-5][0-9])?)?)?)?\z"
)
# As DuckDB may read it; all other texts are none.
_OTHER_MOMENT = r"(?i)\A\s*-?([0-9]+[-/\\ ][0-9]+[-/\\ ][0-9]|epoch|infinity)"
_ARE_MOMENTS = (
    *(exp.Add, exp.DateFromParts, exp.DateTrunc, exp.LastDay, exp.StrToTime, exp.Sub),
    *(exp.TimestampFromParts, exp.TimestampTrunc, exp.UnixToTime),
)
_BOUNDS = "CAST(TIMESTAMPDIFF({unit}, DATE_TRUNC('{unit}', x), DATE_TRUNC('{unit}', y)) AS BIGINT)"
# DuckDB has a letter for each letter; Java's rules may give two, and look at the letters around.
_CASED = (
    "CASE WHEN LENGTH({name}(x)) <> LENGTH(x) OR CONTAINS(x, '\u03a3') THEN "
    "RAISE_ERROR(CONCAT('Spark writes this text otherwise in {name}: ', x)) ELSE {name}(x) END"
)
_FROM_SECONDS = "TIMESTAMP_MICROS(CAST(RINT(CAST(x AS DOUBLE) * 1E6D) AS BIGINT))"
# What DuckDB takes for spaces.
_SPACES = "".join(map(chr, (0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)))
# Of a negative length, all but so many characters.
_LENGTH = "IF(y < 0, GREATEST(LENGTH(x) + y, 0), y)"
_LOGARITHM = (
    "CASE WHEN x < 0 THEN CAST('NaN' AS DOUBLE) "
    "WHEN x = 0 THEN CAST('-Infinity' AS DOUBLE) ELSE {logarithm} END"
)
# Texts that DuckDB takes for whole numbers.
_OTHER_WHOLE = (
    "^ *[+-]?([0-9]*[.][0-9]*|[0-9.]+[eE][+-]?[0-9]+|[0-9]+(_[0-9]+)+|0[xXbB][0-9a-fA-F]+) *$"
)


def to_spark(sql: str, tables: Mapping[str, str] | None = None) -> str:
    """`sql`, which is of DuckDB's dialect, for Spark. Raises `QueryFailed` for what it cannot say.

    `tables` gives some of the tables other names.

    >>> to_spark("SELECT epoch_us(paid_at) AS paid_us FROM payments")
    'SELECT (UNIX_MICROS(CAST(paid_at AS TIMESTAMP_NTZ))) AS paid_us FROM payments'
    """
    try:
        parsed = sqlglot.parse_one(sql, read="duckdb")
        for table in parsed.find_all(exp.Table):
            if tables and table.name in tables:
                table.set("this", exp.to_identifier(tables[table.name]))
        for node in parsed.walk():
            found = difference(node)
            if found is not None:
                raise _untranslatable(f"{found} is not known to mean the same there", instead(node))
        return parsed.transform(_translated).sql("spark", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise _untranslatable(str(error).splitlines()[0]) from error


def _translated(node: exp.Expression) -> exp.Expression:
    match node:
        case exp.BitwiseRightShift(
            this=exp.Anonymous(this=str() as name, expressions=[text]),
            expression=exp.Literal(this="64"),
        ) if name.lower() == "md5_number":
            return _filled(_LAST_16_BITS, x=text)
        case exp.Anonymous(this=str() as name, expressions=[instant]) if name.lower() == "epoch_us":
            return _filled("UNIX_MICROS(CAST(x AS TIMESTAMP_NTZ))", x=instant)
        case exp.TimeToUnix(this=instant):
            return _filled("UNIX_MICROS(CAST(x AS TIMESTAMP_NTZ)) / 1E6D", x=instant)
        case exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.UUID)):
            return _filled(_UUID, x=value)
        case exp.Cast(this=value, to=exp.DataType(this=kind)) if kind in _WHOLE and (
            _is_text(value) or not _is_no_fraction(value)
        ):
            cast = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
            return _filled(
                _ROUNDED.format(cast=cast, kind=_WHOLE[kind], other=_OTHER_WHOLE), x=value
            )
        case exp.Cast(
            this=value,
            to=exp.DataType(
                this=exp.DataType.Type.DECIMAL,
                expressions=[exp.DataTypeParam(this=precision), exp.DataTypeParam(this=scale)],
            ),
        ) if not _is_no_fraction(value):
            return _decimal(node, value, int(precision.name), int(scale.name))
        case exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.TEXT)):
            return _text(value)
        case exp.DPipe(this=left, expression=right) if not _is_list(left) and not _is_list(right):
            return exp.DPipe(this=_text(left), expression=_text(right))
        case exp.ConcatWs(expressions=[between, *parts]):
            texts = [_text(part) for part in (between, *parts)]
            return exp.Anonymous(this="CONCAT_WS", expressions=texts)
        case exp.Concat(expressions=parts):
            # DuckDB takes values of any type, and leaves nulls out.
            nothing = exp.Literal.string("")
            texts = [exp.Coalesce(this=_text(p), expressions=[nothing.copy()]) for p in parts]
            return exp.Concat(expressions=texts)
        case exp.Div(this=left, expression=right):
            return _filled("CAST(x AS DOUBLE) / y", x=left, y=exp.paren(right, copy=True))
        case exp.Ln(this=value):
            return _filled(_LOGARITHM.format(logarithm="LN(x)"), x=value)
        case exp.Log(this=value, expression=None):
            return _filled(_LOGARITHM.format(logarithm="LOG10(x)"), x=value)
        case exp.Log(this=base, expression=value):
            return _filled(_LOGARITHM.format(logarithm="LOG(y, x)"), x=value, y=base)
        case exp.Sign(this=value):
            return _filled("CASE WHEN ISNAN(CAST(x AS DOUBLE)) THEN 0 ELSE SIGN(x) END", x=value)
        case exp.IsNan(this=value):
            return _filled("IF(x IS NULL, NULL, ISNAN(x))", x=value)
        case exp.RegexpLike() | exp.RegexpExtract() | exp.RegexpExtractAll() | exp.RegexpReplace():
            # A dot is all but a line feed; without this Java leaves out other ends of lines too.
            node.set("expression", exp.Literal.string(f"(?d){node.expression.name}"))
            return node
        case exp.Upper(this=value) | exp.Lower(this=value):
            return _filled(_CASED.format(name=node.key.upper()), x=value)
        case exp.Trim(this=value, expression=None):
            side = str(node.args.get("position") or "BOTH")
            return _filled(f"TRIM({side} '{_SPACES}' FROM x)", x=value)
        case exp.Left(this=value, expression=length):
            return _filled(f"LEFT(x, {_LENGTH})", x=value, y=length)
        case exp.Right(this=value, expression=length):
            return _filled(f"RIGHT(x, {_LENGTH})", x=value, y=length)
        case exp.ArgMax(this=value, expression=order):
            # DuckDB does not look at rows where the value is null.
            return _aggregate("MAX_BY(x, IF(x IS NULL, NULL, y))", x=value, y=order)
        case exp.ArgMin(this=value, expression=order):
            return _aggregate("MIN_BY(x, IF(x IS NULL, NULL, y))", x=value, y=order)
        case exp.CountIf(this=condition):
            return _aggregate("SUM(CASE WHEN x THEN 1 WHEN NOT x THEN 0 END)", x=condition)
        case exp.PercentileCont(this=value, expression=exp.Expression() as share):
            return _aggregate("PERCENTILE(x, y)", x=value, y=share)
        case exp.Anonymous(this=str() as name, expressions=[value]) if name.lower() == "mean":
            return _aggregate("AVG(x)", x=value)
        case exp.DateTrunc(this=day, unit=exp.Expression() as unit):
            return _filled(f"DATE_TRUNC('{unit.name}', x)", x=day)  # a moment, also of a day
        case exp.UnixToTime(this=seconds) if node.args.get("scale") is None:
            return _filled(_FROM_SECONDS, x=seconds)
        case exp.Week(this=day):
            return _filled("WEEKOFYEAR(x)", x=day)
        case exp.Bracket(this=values, expressions=[exp.Literal() as place]):
            # A null where there are fewer; there a bracket is an error then.
            return _filled(f"TRY_ELEMENT_AT(x, {int(place.name) + 1})", x=values)
        case exp.ArrayConcat(this=first, expressions=others):
            # DuckDB leaves out lists that are null.
            empty = exp.Array(expressions=[])
            parts = [
                exp.Coalesce(this=p.transform(_translated), expressions=[empty.copy()])
                for p in (first, *others)
            ]
            return exp.Anonymous(this="CONCAT", expressions=parts)
        case exp.Cast(this=value, to=exp.DataType(this=kind)) if (
            kind in _MOMENTS and _is_other_text(value)
        ):
            return _moment(node, value, _MOMENTS[kind])
        case exp.Cast(this=value, to=exp.DataType(this=exp.DataType.Type.TIMESTAMPTZ)):
            cast = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
            return _filled(f"{cast}(x AS TIMESTAMP_LTZ)", x=value)
        case exp.DayOfWeek(this=day):
            return _filled("DAYOFWEEK(x) - 1", x=day)
        case exp.DayOfWeekIso(this=day):
            return _filled("(DAYOFWEEK(x) + 5) % 7 + 1", x=day)
        case exp.DateDiff(this=end, expression=start, unit=exp.Var(this=str() as unit)):
            # DuckDB counts the bounds of units between the two, Spark whole units.
            return _filled(_BOUNDS.format(unit=unit), x=start, y=end)
        case exp.Extract(this=exp.Var(this="SECOND"), expression=instant):
            return _filled("SECOND(x)", x=instant)
        case _:
            return node


def _aggregate(template: str, **values: exp.Expression) -> exp.Expression:
    """Without parentheses, for `FILTER` and `OVER` may follow."""
    inner = _filled(template, **values).this
    assert isinstance(inner, exp.Expression)  # noqa: S101 - what stands in them
    return inner


def _decimal(
    node: exp.Expression, value: exp.Expression, precision: int, scale: int
) -> exp.Expression:
    cast = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
    kind = f"DECIMAL({precision}, {scale})"
    if scale > _MOST_SCALE:
        return _filled(f"{cast}(x AS {kind})", x=value)
    unit = _UNIT.format(scale=scale) if scale else ""
    return _filled(_DECIMAL.format(cast=cast, kind=kind, scale=scale, unit=unit), x=value)


def _moment(node: exp.Expression, value: exp.Expression, kind: str) -> exp.Expression:
    is_tried = isinstance(node, exp.TryCast)
    return _filled(
        _MOMENT.format(cast="TRY_CAST" if is_tried else "CAST", kind=kind),
        x=value,
        same=exp.Literal.string(_SAME_MOMENT),
        otherwise=exp.Literal.string(_OTHER_MOMENT if is_tried else ""),
    )


def _is_other_text(value: exp.Expression) -> bool:
    """Whether a value may be a text, by its form, and one that is no moment in both."""
    match value.unnest():
        case exp.Cast(to=exp.DataType(this=kind)):
            return kind is exp.DataType.Type.TEXT
        case exp.Literal(is_string=True, name=text):
            return re.search(_SAME_MOMENT.replace(r"\z", r"\Z"), text) is None
        case other:
            return not isinstance(other, _ARE_MOMENTS)


def _text(value: exp.Expression) -> exp.Expression:
    return _filled("CAST(x AS STRING)" if _is_no_fraction(value) else _TEXT, x=value)


def _is_text(value: exp.Expression) -> bool:
    """By its form."""
    match value:
        case exp.Cast(to=exp.DataType(this=kind)):
            return kind is exp.DataType.Type.TEXT
        case _:
            return value.is_string or isinstance(value, exp.Concat | exp.DPipe)


def _is_list(value: exp.Expression) -> bool:
    """By its form: lists in columns are joined by `list_concat`."""
    return isinstance(value, exp.Array)


def _is_no_fraction(value: exp.Expression) -> bool:
    """Whether a value is no fraction by its form alone: templates repeat what they are given, so
    that nested ones must be few.
    """
    match value:
        case exp.Cast(to=exp.DataType(this=kind)):
            return kind in _NO_FRACTIONS
        case exp.Literal():
            return value.is_string or value.is_int
        case _:
            return isinstance(
                value,
                exp.Length | exp.Concat | exp.DPipe | exp.Count | exp.IntDiv | exp.BitwiseAnd,
            )


def _filled(template: str, **values: exp.Expression) -> exp.Expression:
    """The Spark expression `template` with `values`, themselves translated, for its names."""
    translated = {name: value.transform(_translated) for name, value in values.items()}
    return exp.paren(
        sqlglot.parse_one(template, read="spark").transform(
            lambda node: (
                translated[node.name].copy()
                if isinstance(node, exp.Column) and node.name in translated
                else node
            )
        ),
        copy=False,
    )


def _untranslatable(problem: str, better: str | None = None) -> QueryFailed:
    return QueryFailed(
        f"Spark: this SQL has no translation: {problem}",
        hint=f"write {better}" if better else "use what both DuckDB and Spark have",
    )
