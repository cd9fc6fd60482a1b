"""Source: raw rows with an event time, as they arrive."""

from dataclasses import dataclass

from konveyer.feature_store.definitions.errors import BadDefinition
from konveyer.feature_store.definitions.names import check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Raw rows: Parquet at `path` (a file, a folder or a glob), or one SELECT over other sources.

    `event_time` names the column that says when a row happened, `created_time` the one that says
    when it became known. A relative path is taken from the workspace. A source read only by the
    SQL of others may leave `event_time` out.

    >>> Source(name="baskets", path="data/baskets.parquet", event_time="paid_at").is_query
    False
    """

    name: str
    path: str | None = None
    sql: str | None = None
    event_time: str | None = None
    created_time: str | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("Source", self.name)
        if (self.path is None) == (self.sql is None):
            raise BadDefinition(
                f"Source '{self.name}' needs either a path or a SQL query.", hint="give one of them"
            )

    @property
    def is_query(self) -> bool:
        return self.sql is not None
