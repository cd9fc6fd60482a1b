"""Reading SQL with sqlglot: is it one SELECT, and over which tables."""

import sqlglot
from sqlglot import TokenType, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import traverse_scope

from konveyer.feature_store.registry.errors import SqlInvalid

DIALECT = "duckdb"
# What may stand where a table does and reads none, or one that is found inside it.
_NO_TABLES = (exp.GenerateSeries, exp.Unnest, exp.Explode, exp.Subquery)
# What is another each time that it is asked for.
_OTHER_EACH_TIME = (
    exp.CurrentDate,
    exp.CurrentTime,
    exp.CurrentTimestamp,
    exp.Localtime,
    exp.Localtimestamp,
    exp.Rand,
    exp.TableSample,
    exp.Uuid,
)
_OTHER_BY_NAME = {
    "current_localtime",
    "get_current_timestamp",
    "nextval",
    "now",
    "setseed",
    "transaction_timestamp",
    "uuidv4",
    "uuidv7",
}


def tables_read(sql: str, *, where: str) -> tuple[str, ...]:
    """The tables that one SELECT reads, by name, without its own common table expressions.

    >>> tables_read("WITH a AS (SELECT * FROM t) SELECT * FROM a JOIN u USING (k)", where="x")
    ('t', 'u')
    >>> tables_read("WITH t AS (SELECT * FROM t WHERE k > 0) SELECT * FROM t", where="x")
    ('t',)
    """
    query = one_select(sql, where=where)
    read = []
    for table in query.find_all(exp.Table, exp.Lateral):
        if isinstance(table.this, _NO_TABLES):
            continue
        if not isinstance(table.this, exp.Identifier) or table.args.get("db"):
            raise SqlInvalid(
                f"The SQL of {where} reads {table.sql(DIALECT)}, which is no source's name.",
                hint="define a Source for it, and read that",
            )
        read.append(table.name)
    own = {cte.alias_or_name for cte in query.find_all(exp.CTE)}
    return tuple(sorted((set(read) - own) | _of_no_cte(query, where)))


def _of_no_cte(query: exp.Query, where: str) -> set[str]:
    """The tables that are read where no common table expression of their name is in sight."""
    try:
        scopes = traverse_scope(query)
    except SqlglotError as error:
        raise SqlInvalid(f"The SQL of {where}: {error}", hint="correct it") from error
    sources = (source for scope in scopes for source in scope.sources.values())
    return {source.name for source in sources if isinstance(source, exp.Table) and source.name}


def columns_named(sql: str, *, where: str) -> frozenset[str] | None:
    """The names in one SELECT, in lower case: its columns are among them. None for every column.

    A plain `*` names none: it hands columns on as they are.

    >>> sorted(columns_named("SELECT *, a + 1 AS B FROM t JOIN u USING (c)", where="x"))
    ['a', 'b', 'c', 't', 'u']
    >>> columns_named("SELECT DISTINCT * FROM t", where="x") is None
    True
    """
    query = one_select(sql, where=where)
    if _takes_whole_rows(query):
        return None
    return frozenset(name.name.lower() for name in query.find_all(exp.Identifier))


def _takes_whole_rows(query: exp.Query) -> bool:
    """Whether what it gives depends on columns that it does not name."""
    rows = {table.alias_or_name.lower() for table in query.find_all(exp.Table, exp.Subquery)}
    stars = [select for select in query.find_all(exp.Select) if select.is_star]
    return (
        query.find(exp.Columns, exp.Pivot) is not None
        or any(join.method == "NATURAL" for join in query.find_all(exp.Join))
        # The name of a table may stand where a value does, for a whole row.
        or any(column.name.lower() in rows for column in query.find_all(exp.Column))
        or any(one.args.get("distinct") or one.find_ancestor(exp.SetOperation) for one in stars)
        # The names after the alias of a table are other ones for its columns.
        or (bool(stars) and any(one.columns for one in query.find_all(exp.TableAlias)))
    )


def check_condition(sql: str, *, where: str) -> None:
    """Raise unless `sql` is one expression, such as the `where` of an aggregation."""
    query = one_select(f"SELECT * FROM t WHERE ({sql})", where=where)  # noqa: S608 - never run
    condition = query.args["where"].this
    if not isinstance(condition, exp.Paren):
        raise SqlInvalid(
            f"The condition of {where} is not one expression.", hint="balance its parentheses"
        )
    if condition.find(exp.AggFunc, exp.Window, exp.Query, exp.Explode):
        raise SqlInvalid(
            f"The condition of {where} must speak of one row: no aggregate, window, subquery or "
            "unnest.",
            hint="compute it in a SQL source first",
        )


def one_select(sql: str, *, where: str) -> exp.Query:
    try:
        statements = sqlglot.parse(nestable(sql), read=DIALECT)
    except SqlglotError as error:
        first = str(error).splitlines()[0]
        raise SqlInvalid(
            f"The SQL of {where} does not parse: {first}", hint="correct it"
        ) from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SqlInvalid(
            f"The SQL of {where} must be exactly one SELECT.", hint="remove everything else"
        )
    for node in statements[0].walk():
        if _is_other_each_time(node):
            raise SqlInvalid(
                f"The SQL of {where} has {node.sql(DIALECT).strip()}, which is another each time: "
                "no training set could be built again.",
                hint="take times from the rows; what is known when it is asked for is said by a "
                "window, by 'ttl', or by an on-demand function",
            )
    return statements[0]


def _is_other_each_time(node: exp.Expr) -> bool:
    match node:
        case exp.Anonymous(this=str() as name, expressions=arguments):
            is_age_now = name.lower() == "age" and len(arguments) == 1
            return is_age_now or name.lower() in _OTHER_BY_NAME
        case _:
            return isinstance(node, _OTHER_EACH_TIME)


def nestable(sql: str) -> str:
    """`sql` up to its last word: a semicolon or a comment after it would end a query around it.

    >>> nestable("SELECT a FROM t;  -- all of it")
    'SELECT a FROM t'
    """
    words = [
        token
        for token in sqlglot.tokenize(sql, read=DIALECT)
        if token.token_type is not TokenType.SEMICOLON
    ]
    return sql[: words[-1].end + 1] if words else sql
