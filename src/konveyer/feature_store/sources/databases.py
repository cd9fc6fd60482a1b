"""The table or query of a database that a source names, read once as Arrow batches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from konveyer.core.errors import did_you_mean
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.adbc import AdbcConnection, connected
from konveyer.feature_store.sources.database_url import DatabaseUrl, database_url
from konveyer.feature_store.sources.errors import DatabaseUnknown, UnknownColumn
from konveyer.feature_store.sources.kind import Places
from konveyer.feature_store.sources.postgresql import PostgreSQL
from konveyer.feature_store.sources.sqlite import SQLite


class Dialect(Protocol):
    """How one kind of database is asked, through a connection that may only read.

    Without `knows_types` a source declares them, and only its rows can tell whether it is right.
    """

    knows_types: bool

    def uri(self, url: str, root: Path) -> str:
        """The URL as the driver wants it; a relative path starts at `root`."""

    def names(self, source: Source, connection: AdbcConnection) -> list[str]:
        """All columns that the table or query has; nothing is read."""

    def schema(self, source: Source, connection: AdbcConnection) -> pa.Schema:
        """The columns that `batches` gives; raises what does not fit the declaration."""

    def batches(self, source: Source, connection: AdbcConnection) -> Iterator[pa.RecordBatch]:
        """All rows, as they arrive."""


_DIALECTS: dict[str, Dialect] = {
    "postgresql": PostgreSQL(),
    "postgres": PostgreSQL(),
    "sqlite": SQLite(),
}


def database_schema(source: Source, places: Places) -> pa.Schema:
    """The columns that `database_rows` would give. Raises what the database has not, and what its
    first rows show to be declared wrongly where only rows can tell.
    """
    with _opened(source, places) as (dialect, connection):
        schema = _schema(source, dialect, connection)
        if not dialect.knows_types:
            next(iter(dialect.batches(source, connection)), None)
        return schema


@contextmanager
def database_rows(source: Source, places: Places) -> Iterator[pa.RecordBatchReader]:
    """All rows, over one connection, once. What breaks on the way is raised by the reader."""
    with _opened(source, places) as (dialect, connection):
        schema = _schema(source, dialect, connection)
        yield pa.RecordBatchReader.from_batches(schema, dialect.batches(source, connection))


def _schema(source: Source, dialect: Dialect, connection: AdbcConnection) -> pa.Schema:
    names = dialect.names(source, connection)
    for name in source.columns:
        if name not in names:
            raise UnknownColumn(
                f"Source '{source.name}' declares column '{name}', which it does not have.",
                hint=did_you_mean(name, names, otherwise=f"it has {', '.join(names)}"),
            )
    return dialect.schema(source, connection)


@contextmanager
def _opened(source: Source, places: Places) -> Iterator[tuple[Dialect, AdbcConnection]]:
    url = _url_of(source, places)
    dialect = _DIALECTS.get(url.scheme)
    if dialect is None:
        raise DatabaseUnknown(
            f"[databases.{source.database}] has a URL that no driver here answers to.",
            hint=f"it begins with one of: {', '.join(_DIALECTS)}",
        )
    with connected(source, url, dialect.uri(url.full, places.root)) as connection:
        yield dialect, connection


def _url_of(source: Source, places: Places) -> DatabaseUrl:
    name = source.database or ""
    url = places.databases.get(name)
    if url is None:
        known = places.databases
        raise DatabaseUnknown(
            f"Source '{source.name}' reads database '{name}', which konveyer.toml does not have.",
            hint=did_you_mean(name, known, otherwise=f"add [databases.{name}] with its url"),
        )
    return database_url(name, url, os.environ)
