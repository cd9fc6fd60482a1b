"""Source: raw rows with an event time, as they arrive."""

import re
from dataclasses import dataclass, field
from typing import Literal

from konveyer.core.schema import Column, ColumnType
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.names import check_name

TypeName = Literal["int64", "float64", "bool", "string", "timestamp"]
_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Raw rows from one place: files, one SELECT over other sources, or a database.

    `path` is a Parquet file, a folder or a glob of them, a Delta table (a folder that has
    `_delta_log`), or CSV (it ends in `.csv` or `.csv.gz`, a glob too); it starts at the workspace.
    `sql` reads other sources by name. `database` names a `[databases.NAME]` of `konveyer.toml` and
    comes with a `table` (exactly as the database spells it) or a `query` in that database's SQL.

    `columns` says which columns to read and what type each has. CSV and SQLite need it, because
    they know no types of their own; other databases may have it; other files must not.

    `event_time` names the column that says when a row happened, `created_time` the one that says
    when it became known. A source read only by the SQL of others may leave `event_time` out.

    >>> Source(name="baskets", path="data/baskets.parquet", event_time="paid_at").is_csv
    False
    >>> Source(name="clients", database="crm", table="public.clients").place
    'crm: public.clients'
    """

    name: str
    path: str | None = None
    sql: str | None = None
    database: str | None = None
    table: str | None = None
    query: str | None = None
    columns: dict[str, TypeName] = field(default_factory=dict)
    delimiter: str = ","
    event_time: str | None = None
    created_time: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("Source", self.name)
        self._check_place()
        self._check_columns()

    @property
    def is_csv(self) -> bool:
        return self.path is not None and self.path.lower().endswith((".csv", ".csv.gz"))

    @property
    def place(self) -> str:
        """Where the rows come from, in the words of the definition: it never holds a secret."""
        if self.database is not None:
            return f"{self.database}: {self.table or self.query}"
        return self.sql or self.path or ""

    @property
    def declared(self) -> tuple[Column, ...]:
        return tuple(Column(name, ColumnType(dtype)) for name, dtype in self.columns.items())

    def _check_place(self) -> None:
        where = f"Source '{self.name}'"
        if sum(given is not None for given in (self.path, self.sql, self.database)) != 1:
            raise BadDefinition(
                f"{where} needs either a path, a SQL query or a database.", hint="give one of them"
            )
        inside = [given for given in (self.table, self.query) if given is not None]
        if len(inside) != (self.database is not None):
            raise BadDefinition(
                f"{where} needs a database together with either a table or a query.",
                hint='write database="crm", table="public.clients" or query="SELECT ..."',
            )
        if self.table is not None and not _TABLE.fullmatch(self.table):
            raise BadDefinition(
                f"{where} has table '{self.table}', which is not a name.",
                hint="write table or schema.table, or give a query",
            )

    def _check_columns(self) -> None:
        where = f"Source '{self.name}'"
        if self.columns and not self.is_csv and self.database is None:
            raise BadDefinition(
                f"{where} declares columns, which its kind does not take.",
                hint="leave them out: Parquet, Delta and SQL have types of their own",
            )
        if len(self.delimiter) != 1:
            raise BadDefinition(
                f"{where} has delimiter '{self.delimiter}'.", hint="use one character"
            )
        for name, dtype in self.columns.items():
            if dtype not in set(ColumnType):
                raise BadDefinition(
                    f"{where}, column '{name}' has type '{dtype}'.",
                    hint=f"use one of {', '.join(ColumnType)}",
                )
        for time in (self.event_time, self.created_time):
            if time is not None and self.columns and time not in self.columns:
                raise BadDefinition(
                    f"{where} takes its time from '{time}', which is not in its columns.",
                    hint=f"add '{time}': 'timestamp' to them",
                )
