"""Triggers that let rows be added to a table and nothing else."""

# REPLACE deletes without the trigger of a deletion.
_SQLITE_REPLACE = """
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""
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
    """The statements for `dialect` ("sqlite" or "postgresql"); the table must have an `id`."""
    if dialect == "sqlite":
        changes = (_SQLITE.format(table=table, verb=verb) for verb in ("update", "delete"))
        return (*changes, _SQLITE_REPLACE.format(table=table))
    return tuple(part.format(table=table) for part in (_POSTGRES_FUNCTION, _POSTGRES_TRIGGER))
