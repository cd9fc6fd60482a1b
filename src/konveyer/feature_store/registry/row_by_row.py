"""Whether SQL makes each of its rows from one row of a source, and from nothing else."""

from collections.abc import Set as AbstractSet

from sqlglot import exp

from konveyer.feature_store.registry.sql import one_select

_WHAT = {
    "joins": "a join",
    "laterals": "a lateral join",
    "group": "GROUP BY",
    "having": "HAVING",
    "qualify": "QUALIFY",
    "windows": "a window",
    "distinct": "DISTINCT",
    "limit": "LIMIT",
    "offset": "OFFSET",
}


def beyond_one_row(sql: str, sources: AbstractSet[str], *, where: str) -> str | None:
    """What in `sql` looks at more than one row of `sources` at a time; None when nothing does.

    Parts of a UNION ALL that do not read these sources may do what they like.

    >>> beyond_one_row("SELECT k, 2 * n AS m FROM t WHERE n > 0", {"t"}, where="x") is None
    True
    >>> beyond_one_row("SELECT k, sum(n) AS m FROM t GROUP BY k", {"t"}, where="x")
    'GROUP BY'
    """
    return _beyond(one_select(sql, where=where), sources)


def _beyond(query: exp.Expr, outer: AbstractSet[str]) -> str | None:
    sources = set(outer)
    for cte in query.args["with_"].expressions if query.args.get("with_") else []:
        if _reads(cte.this, sources):
            sources.add(cte.alias_or_name)
            if found := _beyond(cte.this, sources):
                return found
    if not _reads(query, sources):
        return None
    match query:
        case exp.Union():
            if query.args.get("distinct"):
                return "UNION without ALL"
            return (
                _of_clauses(query) or _beyond(query.left, sources) or _beyond(query.right, sources)
            )
        case exp.Select():
            return _of_select(query, sources)
        case exp.Subquery():
            return _of_clauses(query) or _beyond(query.this, sources)
        case exp.Table():
            return _of_clauses(query)
        case _:
            return type(query).__name__.upper()


def _of_select(query: exp.Select, sources: AbstractSet[str]) -> str | None:
    if found := _of_clauses(query):
        return found
    for part in [*query.expressions, query.args.get("where")]:
        if part is None:
            continue
        if part.find(exp.Query):
            return "a subquery in an expression"
        if part.find(exp.Window):
            return "a window function"
        if part.find(exp.AggFunc):
            return "an aggregate"
    return _beyond(query.args["from_"].this, sources)


def _of_clauses(query: exp.Expr) -> str | None:
    return next((what for clause, what in _WHAT.items() if query.args.get(clause)), None)


def _reads(query: exp.Expr, sources: AbstractSet[str]) -> bool:
    return any(table.name in sources for table in query.find_all(exp.Table))
