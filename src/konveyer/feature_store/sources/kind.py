"""What kind of place a source is, by its definition and, for folders, by a look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.segments import ListedSegment


class SourceKind(StrEnum):
    PARQUET = "parquet"
    DELTA = "delta"
    CSV = "csv"
    SQL = "sql"
    DATABASE = "database"
    PUSHED = "pushed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where sources stand: relative paths start at `root`, and `databases` are the URLs of
    `konveyer.toml` by name, as they are written there (secrets are taken in when one is opened).
    `segments` has the rows of pushed sources that are to be read, by the source's name.
    """

    root: Path
    databases: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Sequence[ListedSegment]] = field(default_factory=dict)

    @property
    def staging(self) -> Path:
        """Where rows stand while a run reads them that cannot be read twice from their place."""
        return self.root / "state" / "reading"

    @property
    def pushed(self) -> Path:
        """Where the rows of pushed sources stand, for good: a folder for each source."""
        return self.root / "state" / "pushed"


def kind_of(source: Source, places: Places) -> SourceKind:
    """A folder with `_delta_log` is a Delta table, whatever else it holds."""
    if source.sql is not None:
        return SourceKind.SQL
    if source.database is not None:
        return SourceKind.DATABASE
    if source.pushed:
        return SourceKind.PUSHED
    if source.is_csv:
        return SourceKind.CSV
    if (places.root / (source.path or "") / "_delta_log").is_dir():
        return SourceKind.DELTA
    return SourceKind.PARQUET
