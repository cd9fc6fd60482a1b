"""Reading SQL with sqlglot: is it one SELECT, and over which tables."""

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from konveyer.feature_store.registry.errors import SqlInvalid

DIALECT = "duckdb"


def tables_read(sql: str, *, where: str) -> tuple[str, ...]:
    """The tables that one SELECT reads, by name, without its own common table expressions.

    >>> tables_read("WITH a AS (SELECT * FROM t) SELECT * FROM a JOIN u USING (k)", where="x")
    ('t', 'u')
    """
    query = one_select(sql, where=where)
    own = {cte.alias_or_name for cte in query.find_all(exp.CTE)}
    read = []
    for table in query.find_all(exp.Table):
        if isinstance(table.this, exp.GenerateSeries):
            continue
        if not isinstance(table.this, exp.Identifier) or table.db:
            raise SqlInvalid(
                f"The SQL of {where} reads {table.sql(DIALECT)}, which is no source's name.",
                hint="define a Source for it, and read that",
            )
        read.append(table.name)
    return tuple(sorted(set(read) - own))


def check_condition(sql: str, *, where: str) -> None:
    """Raise unless `sql` is one expression, such as the `where` of an aggregation."""
    query = one_select(f"SELECT * FROM t WHERE ({sql})", where=where)  # noqa: S608 - never run
    condition = query.args["where"].this
    if not isinstance(condition, exp.Paren):
        raise SqlInvalid(
            f"The condition of {where} is not one expression.", hint="balance its parentheses"
        )
    if condition.find(exp.AggFunc, exp.Window, exp.Query):
        raise SqlInvalid(
            f"The condition of {where} must speak of one row: no aggregate, window or subquery.",
            hint="compute it in a SQL source first",
        )


def one_select(sql: str, *, where: str) -> exp.Query:
    try:
        statements = sqlglot.parse(sql, read=DIALECT)
    except SqlglotError as error:
        first = str(error).splitlines()[0]
        raise SqlInvalid(
            f"The SQL of {where} does not parse: {first}", hint="correct it"
        ) from error
    if len(statements) == 1 and isinstance(statements[0], exp.Query):
        return statements[0]
    raise SqlInvalid(
        f"The SQL of {where} must be exactly one SELECT.", hint="remove everything else"
    )
