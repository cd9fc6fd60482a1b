"""Source: raw rows with an event time, as they arrive."""

import re
from dataclasses import dataclass, field

from konveyer.core.schema import Column, ColumnType
from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.fields import check_fields
from konveyer.feature_store.definitions.names import check_name, check_unique
from konveyer.feature_store.definitions.pushed import ARRIVAL, PushedColumn
from konveyer.feature_store.definitions.types import flat_type

_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Raw rows from one place: files, one SELECT over other sources, a database, or a push.

    `path` is a Parquet file, a folder or a glob of them, a Delta table (a folder that has
    `_delta_log`), or CSV (it ends in `.csv` or `.csv.gz`, a glob too); it starts at the workspace.
    `sql` reads other sources by name. `database` names a `[databases.NAME]` of `konveyer.toml` and
    comes with a `table` (exactly as the database spells it) or a `query` in that database's SQL.

    `columns` says which columns to read and what type each has. CSV and SQLite need it, because
    they know no types of their own; other databases may have it; other files must not.

    `pushed` lists the columns of rows that are sent to the source, by `konveyer.FeatureStore.push`,
    the API or a command. Each also has a column `created_time`, the moment of its arrival.

    `event_time` names the column that says when a row happened, `created_time` the one that says
    when it became known. A source read only by the SQL of others may leave `event_time` out.

    >>> Source(name="baskets", path="data/baskets.parquet", event_time="paid_at").is_csv
    False
    >>> Source(name="clients", database="crm", table="public.clients").place
    'crm: public.clients'
    >>> at = PushedColumn("at", "timestamp")
    >>> Source(name="clicks", pushed=(at,), event_time="at").created_time
    'created_time'
    """

    name: str
    path: str | None = None
    sql: str | None = None
    database: str | None = None
    table: str | None = None
    query: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    delimiter: str = ","
    pushed: tuple[PushedColumn, ...] = ()
    event_time: str | None = None
    created_time: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields("Source", self)
        check_name("Source", self.name)
        self._check_place()
        self._check_columns()
        if self.pushed:
            self._check_pushed()
            object.__setattr__(self, "created_time", ARRIVAL)

    @property
    def is_csv(self) -> bool:
        return self.path is not None and self.path.lower().endswith((".csv", ".csv.gz"))

    @property
    def place(self) -> str:
        """Where the rows come from, in the words of the definition: it never holds a secret."""
        if self.database is not None:
            return f"{self.database}: {self.table or self.query}"
        return self.sql or self.path or ", ".join(f"{c.name} {c.dtype}" for c in self.pushed)

    @property
    def declared(self) -> tuple[Column, ...]:
        if self.pushed:
            arrival = Column(ARRIVAL, ColumnType.TIMESTAMP)
            return (*(column.column for column in self.pushed), arrival)
        return tuple(self.declared_column(name) for name in self.columns)

    def declared_column(self, name: str) -> Column:
        """One of `columns`, which are no lists."""
        where = f"Source '{self.name}', column '{name}'"
        return Column(name, flat_type(self.columns[name], where=where))

    def _check_place(self) -> None:
        where = f"Source '{self.name}'"
        places = (self.path, self.sql, self.database, self.pushed or None)
        if sum(given is not None for given in places) != 1:
            raise BadDefinition(
                f"{where} needs either a path, a SQL query, a database or pushed columns.",
                hint="give one of them",
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
        types = {name: str(self.declared_column(name).dtype) for name in self.columns}
        object.__setattr__(self, "columns", types)
        for time in (self.event_time, self.created_time):
            if time is not None and self.columns and time not in self.columns:
                raise BadDefinition(
                    f"{where} takes its time from '{time}', which is not in its columns.",
                    hint=f"add '{time}': 'timestamp' to them",
                )

    def _check_pushed(self) -> None:
        where = f"Source '{self.name}'"
        check_unique(where, (column.name.lower() for column in self.pushed))
        if self.created_time not in (None, ARRIVAL):
            raise BadDefinition(
                f"{where} is pushed to and has created_time '{self.created_time}'.",
                hint=f"leave it out: it is {ARRIVAL}, the moment of arrival",
            )
        times = [column.name for column in self.pushed if column.dtype == "timestamp"]
        if self.event_time not in times:
            raise BadDefinition(
                f"{where} is pushed to and has event_time {self.event_time!r}, which is not one of "
                "its timestamps.",
                hint=f"its timestamps are: {', '.join(times) or 'none'}",
            )
