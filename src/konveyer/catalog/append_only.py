"""Triggers that let rows be added to a table and nothing else."""

_SQLITE = """
CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
_POSTGRES_FUNCTION = """
CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$
"""
_POSTGRES_TRIGGER = """
CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()
"""


def append_only(table: str, dialect: str) -> tuple[str, ...]:
    """The statements for `dialect` ("sqlite" or "postgresql"); the table must exist."""
    if dialect == "sqlite":
        return tuple(_SQLITE.format(table=table, verb=verb) for verb in ("update", "delete"))
    return tuple(part.format(table=table) for part in (_POSTGRES_FUNCTION, _POSTGRES_TRIGGER))
