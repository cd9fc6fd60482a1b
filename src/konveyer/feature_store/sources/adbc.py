"""Connections to databases through ADBC, as Arrow. The only module that knows ADBC."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.sources.database_url import DatabaseUrl
from konveyer.feature_store.sources.errors import (
    DatabaseDriverMissing,
    DatabaseRefused,
    DatabaseUnreadable,
)

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection, Cursor


class AdbcConnection:
    """One connection, for one source and thread. Its errors name the source and hold no secret."""

    def __init__(self, cursor: "Cursor", explained: Callable[[Exception], KonveyerError]) -> None:
        self._cursor = cursor
        self._explained = explained

    def run(self, sql: str) -> None:
        with self._explaining():
            self._cursor.execute(sql)

    def describe(self, sql: str) -> pa.Schema:
        """The columns of a query that is prepared and not run."""
        with self._explaining():
            return self._cursor.adbc_execute_schema(sql)

    def read(self, sql: str, options: Mapping[str, str]) -> pa.RecordBatchReader:
        """The rows as they arrive. An error on the way is raised where they are read."""
        with self._explaining():
            self._cursor.adbc_statement.set_options(**options)
            self._cursor.execute(sql)
            reader = self._cursor.fetch_record_batch()
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader))

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        with self._explaining():
            yield from reader

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        import adbc_driver_manager

        try:
            yield
        except (adbc_driver_manager.Error, OSError, pa.ArrowException) as error:
            raise self._explained(error) from None  # the driver's own words may hold a secret


@contextmanager
def connected(source: Source, url: DatabaseUrl, uri: str) -> Iterator[AdbcConnection]:
    """A connection for the block; `uri` is `url` as its driver wants it."""

    def explained(error: Exception) -> KonveyerError:
        return _explained(source, url, error)

    try:
        import adbc_driver_manager

        connect = _connect(url.scheme)
    except ImportError as error:
        raise DatabaseDriverMissing(
            f"Source '{source.name}' reads database '{source.database}', but there is no driver "
            f"for {url.scheme} here.",
            hint="install the extra: konveyer[databases]",
        ) from error
    with ExitStack() as stack:
        try:
            connection = connect(uri)
            stack.callback(_close, connection)
            cursor = connection.cursor()
            stack.callback(_close, cursor)
        except adbc_driver_manager.Error as error:
            raise explained(error) from None
        yield AdbcConnection(cursor, explained)


def _close(opened: "Connection | Cursor") -> None:
    import adbc_driver_manager

    with suppress(adbc_driver_manager.Error):  # what was read is whole, or has failed already
        opened.close()


def _connect(scheme: str) -> "Callable[[str], Connection]":
    if scheme == "sqlite":
        from adbc_driver_sqlite import dbapi as sqlite

        return sqlite.connect
    from adbc_driver_postgresql import dbapi as postgresql

    connect: Callable[[str], Any] = postgresql.connect
    return connect


def _explained(source: Source, url: DatabaseUrl, error: Exception) -> KonveyerError:
    import adbc_driver_manager

    lines = url.masked(str(error)).strip().splitlines() or [""]
    where = f"Source '{source.name}', database '{source.database}': {lines[0]}"
    # While rows arrive, Arrow stands between. A server that is there says ERROR, and one that
    # goes says FATAL, or nothing.
    answered = isinstance(error, adbc_driver_manager.ProgrammingError | pa.ArrowException)
    if answered or "ERROR:" in lines[0]:
        return DatabaseRefused(where, hint="correct the table, the query or the grants")
    return DatabaseUnreadable(
        where, hint="see that the database answers, then run again; nothing was changed"
    )
