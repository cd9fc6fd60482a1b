"""What of DuckDB's SQL means the same in Spark, or is translated: each is tested on both."""

import re

from sqlglot import exp

_ARITHMETIC = {
    *(exp.Abs, exp.Acos, exp.Asin, exp.Atan, exp.Atan2, exp.Cbrt, exp.Ceil, exp.Cos, exp.Cosh),
    *(exp.Cot, exp.Degrees, exp.Exp, exp.Floor, exp.Greatest, exp.IsNan, exp.Least, exp.Ln),
    *(exp.Log, exp.Pi, exp.Pow, exp.Radians, exp.Round, exp.Sign, exp.Sin, exp.Sinh, exp.Sqrt),
    *(exp.Tan, exp.Tanh, exp.Trunc),
}
_CHOICES = {
    *(exp.And, exp.Case, exp.Cast, exp.Coalesce, exp.Exists, exp.If, exp.Nullif, exp.Or),
    exp.TryCast,
}
_TEXTS = {
    *(exp.Ascii, exp.Chr, exp.Concat, exp.ConcatWs, exp.Contains, exp.EndsWith, exp.Hex, exp.Left),
    *(exp.Length, exp.Lower, exp.MD5, exp.Pad, exp.RegexpExtract, exp.RegexpExtractAll),
    *(exp.RegexpLike, exp.RegexpReplace, exp.Repeat, exp.Replace, exp.Right, exp.SHA, exp.SHA2),
    *(exp.Split, exp.SplitPart, exp.StartsWith, exp.StrPosition, exp.Substring, exp.Translate),
    *(exp.Trim, exp.Upper),
}
_TIMES = {
    *(exp.DateDiff, exp.DateFromParts, exp.DateTrunc, exp.Day, exp.DayOfMonth, exp.DayOfWeek),
    *(exp.DayOfWeekIso, exp.DayOfYear, exp.Extract, exp.Hour, exp.LastDay, exp.Minute, exp.Month),
    *(
        exp.Quarter,
        exp.Second,
        exp.StrToTime,
        exp.TimeToStr,
        exp.TimeToUnix,
        exp.TimestampFromParts,
    ),
    *(exp.TimestampTrunc, exp.UnixToTime, exp.Week, exp.WeekOfYear, exp.Year),
}
_LISTS = {
    *(exp.Array, exp.ArrayAppend, exp.ArrayConcat, exp.ArrayFilter, exp.ArrayMax, exp.ArrayMin),
    *(exp.ArrayPrepend, exp.ArraySize, exp.ArraySort, exp.Explode, exp.Struct),
    *(exp.Transform, exp.Unnest),
}
_AGGREGATES = {
    *(exp.AnyValue, exp.ArgMax, exp.ArgMin, exp.Avg, exp.BitwiseAndAgg, exp.BitwiseOrAgg),
    *(exp.BitwiseXorAgg, exp.Count, exp.CountIf, exp.CovarPop, exp.CovarSamp, exp.GroupConcat),
    *(exp.LogicalAnd, exp.LogicalOr, exp.Max, exp.Median, exp.Min, exp.PercentileCont, exp.Stddev),
    *(exp.StddevPop, exp.StddevSamp, exp.Sum, exp.Variance, exp.VariancePop),
}
_WINDOWS = {
    *(exp.CumeDist, exp.DenseRank, exp.First, exp.FirstValue, exp.Lag, exp.Last, exp.LastValue),
    *(exp.Lead, exp.NthValue, exp.Ntile, exp.PercentRank, exp.Rank, exp.RowNumber),
}
SAME = _ARITHMETIC | _CHOICES | _TEXTS | _TIMES | _LISTS | _AGGREGATES | _WINDOWS
# Those that the parser has no class for.
_SAME_NAMES = frozenset({"epoch_us", "md5_number", "mean"})

_KIND = exp.DataType.Type
_CASTS = frozenset(
    {
        *(_KIND.TINYINT, _KIND.SMALLINT, _KIND.INT, _KIND.BIGINT, _KIND.FLOAT, _KIND.DOUBLE),
        *(_KIND.DECIMAL, _KIND.BOOLEAN, _KIND.TEXT, _KIND.UUID, _KIND.DATE, _KIND.ARRAY),
        *(_KIND.TIMESTAMP, _KIND.TIMESTAMPNTZ, _KIND.TIMESTAMPTZ),
    }
)
_UNITS = frozenset({"YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})
_DIFFERENCES = _UNITS | {"MILLISECOND", "MICROSECOND"}
_BOUNDS = _DIFFERENCES | {"WEEK"}
_PARTS = _UNITS | {"WEEK", "DOY", "DAYOFYEAR"}
# Parts of a moment as text; what stands between them must be no letters, which are others there.
_FORMAT = r"(%-?[YymdHMSfIpaAbB]|[^%A-Za-z'\"\\])*"


def difference(node: exp.Expr) -> str | None:
    """Why Spark would give something else for `node`, its parts aside; None where it does not."""
    match node:
        case exp.Anonymous(this=str() as name):
            return None if name.lower() in _SAME_NAMES else f"{name}()"
        case exp.ArrayContains():
            return "list_contains()"
        case exp.Func() if type(node) not in SAME:
            return _sql(node)
        case exp.First() | exp.Last() | exp.FirstValue() | exp.LastValue() if not _is_window(node):
            return f"{_sql(node)} without OVER (ORDER BY ...)"
        case exp.GroupConcat() if node.find(exp.Order) is None:
            return f"{_sql(node)} without ORDER BY"
        case exp.Cast(to=exp.DataType(this=kind)) if kind not in _CASTS:
            return _sql(node)
        case exp.Extract(this=unit) if not _names_one_of(unit, _PARTS):
            return _sql(node)
        case exp.DateDiff(unit=unit) if not _names_one_of(unit, _DIFFERENCES):
            return _sql(node)
        case exp.TimestampTrunc(unit=unit) | exp.DateTrunc(unit=unit) if not _names_one_of(
            unit, _BOUNDS
        ):
            return _sql(node)
        case exp.TimeToStr() | exp.StrToTime() if not _is_text_like(node.args["format"], _FORMAT):
            return f"the format of {_sql(node)}"
        case exp.WithinGroup() | exp.AtTimeZone() | exp.Collate():
            return _sql(node)
        case exp.Join(side="LEFT" | "RIGHT" | "FULL", this=exp.Unnest()):
            return "an outer join with unnest()"
        case exp.Like() | exp.ILike() if "\\" in node.expression.name:
            return f"the backslash in {_sql(node)}"
        case _:
            return _difference_of_text(node)


def _difference_of_text(node: exp.Expr) -> str | None:
    parts = node.args
    match node:
        case (
            exp.RegexpLike() | exp.RegexpExtract() | exp.RegexpExtractAll() | exp.RegexpReplace()
        ) if "$" in node.expression.name:
            return f"$ (write \\z) in {_sql(node)}"
        case exp.RegexpLike() if parts.get("flag") is not None:
            return f"the options of {_sql(node)}"
        case exp.RegexpExtract() | exp.RegexpExtractAll() if parts.get("parameters") is not None:
            return f"the options of {_sql(node)}"
        case exp.RegexpReplace() if not _is_text_like(parts.get("modifiers"), "g"):
            return f"{_sql(node)} without 'g' alone"
        case exp.RegexpReplace() if not _is_text_like(parts.get("replacement"), r"[^\\$]*"):
            return f"what {_sql(node)} puts in place"
        case exp.Split() if not _is_text_like(node.expression, ".+"):
            return f"what {_sql(node)} splits at"
        case exp.SplitPart() if not _is_text_like(parts.get("delimiter"), ".+"):
            return f"what {_sql(node)} splits at"
        case exp.Chr() if not _is_text_like(node.expressions[0], "[0-9]{1,2}|1[01][0-9]|12[0-7]"):
            return f"{_sql(node)}, but of codes up to 127,"
        case exp.Substring() if not _counts_from_one(parts["start"], parts.get("length")):
            return _sql(node)
        case _:
            return None


def _counts_from_one(start: exp.Expr, length: exp.Expr | None) -> bool:
    """Whether a part of a text is one that DuckDB does not begin before the text, or take from its
    end, which without a length is the same in Spark.
    """
    if length is None:
        return True
    return all(isinstance(part, exp.Literal) for part in (start, length)) and start.name != "0"


def _is_window(node: exp.Expr) -> bool:
    above = node.parent.parent if isinstance(node.parent, exp.IgnoreNulls) else node.parent
    return isinstance(above, exp.Window) and above.args.get("order") is not None


def _names_one_of(unit: exp.Expr | None, units: frozenset[str]) -> bool:
    return unit is not None and unit.name.upper() in units


def _is_text_like(value: exp.Expr | None, pattern: str) -> bool:
    return (
        isinstance(value, exp.Literal) and re.fullmatch(pattern, value.name, re.DOTALL) is not None
    )


def _sql(node: exp.Expr) -> str:
    return node.sql("duckdb")
