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
    *(exp.ArrayPrepend, exp.ArraySize, exp.ArraySort, exp.Bracket, exp.Explode, exp.Struct),
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
_OPERATORS = {
    *(exp.Add, exp.Between, exp.BitwiseAnd, exp.BitwiseNot, exp.BitwiseOr, exp.BitwiseRightShift),
    *(exp.BitwiseXor, exp.Div, exp.Dot, exp.DPipe, exp.EQ, exp.Escape, exp.GT, exp.GTE, exp.ILike),
    *(exp.In, exp.IntDiv, exp.Is, exp.Like, exp.LT, exp.LTE, exp.Mod, exp.Mul, exp.Neg, exp.NEQ),
    *(exp.Not, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Paren, exp.PropertyEQ, exp.Sub),
}
SAME = _ARITHMETIC | _CHOICES | _TEXTS | _TIMES | _LISTS | _AGGREGATES | _WINDOWS | _OPERATORS
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
# Parts of a moment as text; what stands between them must be nothing that is a part there.
_BETWEEN = r"[^%A-Za-z'\"\\\[\]{}#]"
_WRITTEN = rf"(%-[mdHMSI]|%[YymdHMSfIpaAbB]|{_BETWEEN})*"
# Of two digits each takes another century, and without a year each takes another day.
_READ = rf"(?=.*%Y)(%-[mdHMSI]|%[YmdHMSfIpbB]|{_BETWEEN})*"
# Regular expressions that Java reads in the same way: it has sets within sets, other options, and
# words of all letters.
_SET = r"\[\^?(\\[^bBvQ0-9]|[^\\\[\]&]|&(?!&))+\]"
_PATTERN = rf"(\\[^bBvQ0-9]|\((\?:|(?!\?))|[^\\(\[]|{_SET})*"
# These are written anew, and would lose a further argument.
_REWRITTEN = {
    *(exp.ArgMax, exp.ArgMin, exp.Cast, exp.DateTrunc, exp.Trim, exp.TryCast, exp.UnixToTime),
    exp.Week,
}
_ARGUMENTS = frozenset({"this", "expression", "to", "unit", "scale"})
# By the name of a function, a part of a moment or a type.
_INSTEAD = {
    "DATEADD": "t + INTERVAL 1 DAY",
    "DOW": "dayofweek(t)",
    "EPOCH": "epoch(t)",
    "ISODOW": "isodow(t)",
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINT": "BIGINT",
    "UBIGINT": "BIGINT",
}


def is_place(*found: exp.Expr) -> bool:
    """Whether it is a number that is written out, from 0 in what the parser gives: `l[1]`."""
    match found:
        case [exp.Literal(is_string=False) as number]:
            return number.name.isdecimal()
        case _:
            return False


def difference(node: exp.Expr) -> str | None:
    """Why Spark would give something else for `node`, its parts aside; None where it does not."""
    match node:
        case exp.Anonymous(this=str() as name):
            return None if name.lower() in _SAME_NAMES else f"{name}()"
        case exp.ArrayContains():
            return "list_contains()"
        case exp.DateAdd():
            return "date_add()"
        case exp.Func() | exp.Binary() | exp.Unary() | exp.Predicate() if type(node) not in SAME:
            return _sql(node)
        case exp.Bracket(expressions=places) if not is_place(*places):
            return _sql(node)
        case exp.BitwiseRightShift(this=number) if not isinstance(number, exp.Anonymous):
            return _sql(node)
        case exp.In() if node.args.get("expressions") is None and not _is_filter(node):
            return _sql(node)
        case exp.Lambda(expressions=[_, _, *_]):
            return f"the index in {_sql(node)}"
        case exp.First() | exp.Last() | exp.FirstValue() | exp.LastValue() if not _is_window(node):
            return f"{_sql(node)} without OVER (ORDER BY ...)"
        case exp.ArgMax() | exp.ArgMin() | exp.CountIf() if any(
            isinstance(part, exp.Distinct | exp.Order) for part in node.iter_expressions()
        ):
            return _sql(node)
        case _ if type(node) in _REWRITTEN and any(
            isinstance(node.args[name], exp.Expr) for name in node.args.keys() - _ARGUMENTS
        ):
            return f"the last argument of {_sql(node)}"
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
        case exp.TimeToStr() if not _is_text_like(node.args["format"], _WRITTEN):
            return f"the format of {_sql(node)}"
        case exp.StrToTime() if not _is_text_like(node.args["format"], _READ):
            return f"the format of {_sql(node)}, which must have %Y,"
        case exp.WithinGroup() | exp.AtTimeZone() | exp.Collate():
            return _sql(node)
        case exp.Join(side="LEFT" | "RIGHT" | "FULL", this=exp.Unnest()):
            return "an outer join with unnest()"
        case exp.Like() | exp.ILike() if "\\" in node.expression.name:
            return f"the backslash in {_sql(node)}"
        case _:
            return _difference_of_text(node)


def instead(node: exp.Expr) -> str | None:
    """What means the same as `node` and is let through, where it is known."""
    match node:
        case exp.Extract(this=part):
            name = part.name.upper()
        case exp.Cast(to=exp.DataType(this=kind)):
            name = kind.name
        case _:
            name = node.key.upper()
    return _INSTEAD.get(name)


def _difference_of_text(node: exp.Expr) -> str | None:
    parts = node.args
    match node:
        case (
            exp.RegexpLike() | exp.RegexpExtract() | exp.RegexpExtractAll() | exp.RegexpReplace()
        ) if "$" in node.expression.name:
            return f"$ (write \\z) in {_sql(node)}"
        case (
            exp.RegexpLike() | exp.RegexpExtract() | exp.RegexpExtractAll() | exp.RegexpReplace()
        ) if not _is_text_like(node.expression, _PATTERN):
            return f"the pattern of {_sql(node)}"
        case exp.RegexpReplace() if _fits_nothing(node.expression.name):
            return f"the pattern of {_sql(node)}, which may fit no letter at all,"
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


def _fits_nothing(pattern: str) -> bool:
    """Whether a pattern of `_PATTERN` may fit between letters, where engines replace it at other
    places; then it fits the empty text, and not at the beginning alone. Also of one that Python
    does not read.
    """
    names = r"\\([pP](?:\{[^}]*\}|.)|.)"  # one letter of a class of Unicode, and other escapes
    known = re.sub(names, _escape_of_python, pattern, flags=re.DOTALL)
    try:
        fits = re.search(known, "") is not None
    except re.error:
        return True
    return fits and not (pattern.startswith("^") and "|" not in pattern)


def _escape_of_python(escape: re.Match[str]) -> str:
    if escape[1] == "z":
        return r"\Z"
    return r"\w" if escape[1][0] in "pP" else escape[0]


def _counts_from_one(start: exp.Expr, length: exp.Expr | None) -> bool:
    """Whether a part of a text is one that DuckDB does not begin before the text, or take from its
    end, which without a length is the same in Spark.
    """
    if length is None:
        return True
    return all(isinstance(part, exp.Literal) for part in (start, length)) and start.name != "0"


def _is_filter(node: exp.In) -> bool:
    """Whether it asks a query, and where null is as good as false: Spark gives false for it."""
    above = node.find_ancestor(exp.Where, exp.Having, exp.Select)
    return node.args.get("query") is not None and not isinstance(above, exp.Select)


def _is_window(node: exp.Expr) -> bool:
    """Whether it stands over a window with an order, of its own or of the window's name."""
    above = node.parent
    while isinstance(above, exp.Filter | exp.IgnoreNulls):
        above = above.parent
    if not isinstance(above, exp.Window):
        return False
    select = above.find_ancestor(exp.Select)
    named = {one.name: one for one in select.args.get("windows") or ()} if select else {}
    window: exp.Expr | None = above
    while window is not None and window.args.get("order") is None:
        window = named.pop(window.alias, None)
    return window is not None


def _names_one_of(unit: exp.Expr | None, units: frozenset[str]) -> bool:
    return unit is not None and unit.name.upper() in units


def _is_text_like(value: exp.Expr | None, pattern: str) -> bool:
    return (
        isinstance(value, exp.Literal) and re.fullmatch(pattern, value.name, re.DOTALL) is not None
    )


def _sql(node: exp.Expr) -> str:
    return node.sql("duckdb")
