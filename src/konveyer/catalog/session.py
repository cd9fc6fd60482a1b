"""The catalog: one database, SQLite by default, PostgreSQL for a team."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from konveyer.core.errors import Conflict, KonveyerError

MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"
_SQLITE_READS = "sqlite_reads"
_READ_ONLY: dict[str, dict[str, Any]] = {
    "sqlite": {_SQLITE_READS: True},
    "postgresql": {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"},
}
# Any number will do, as long as nobody else locks it in the catalog's database.
_ONE_WRITER = "SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock(5212617386420517281)"


class CatalogNewer(Conflict):
    """The catalog was written by a newer Konveyer."""

    code = "catalog_newer"


class CatalogOutdated(Conflict):
    """The catalog was written by an older Konveyer and is not upgraded yet."""

    code = "catalog_outdated"


class CatalogUnavailable(KonveyerError):
    """The database cannot be reached, or is none."""

    code, status = "catalog_unavailable", HTTPStatus.SERVICE_UNAVAILABLE


class Catalog:
    """Hands out transactions. Thread-safe; a `Session` belongs to one thread.

    A transaction that may write takes a lock at its start, on SQLite (in WAL mode) and PostgreSQL:
    two writers wait for each other, half a minute at most, instead of deciding by what the other is
    about to change. Readers wait for nobody.
    """

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self.engine = create_engine(url, pool_pre_ping=True)
        except (ArgumentError, ImportError) as error:
            raise CatalogUnavailable(
                f"The catalog's URL cannot be used: {error}",
                hint="write [catalog] url as sqlite:///state/catalog.db or "
                "postgresql+psycopg://host/name (extra 'postgres')",
            ) from error
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin)
        if self.engine.dialect.name == "postgresql":
            event.listen(self.engine, "begin", _begin_alone)
        self._read_only = self.engine.execution_options(
            **_READ_ONLY.get(self.engine.dialect.name, {})
        )

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commit at the end of the block, roll back when it raises."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view of the catalog for the block; nothing can be written in it."""
        with Session(self._read_only, expire_on_commit=False) as session, session.begin():
            session.connection()
            yield session

    def migrate(self) -> None:
        """Create the catalog or bring it to this version; harmless when it is there already."""
        from alembic import command
        from alembic.config import Config

        try:
            with self.engine.begin() as connection:
                self._refuse_newer(connection)
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except DBAPIError as error:
            raise _unavailable(self.engine.url, error) from error

    def check_version(self) -> None:
        """Raise unless the catalog is exactly of this version."""
        try:
            with self._read_only.connect() as connection:
                current = self._refuse_newer(connection)
        except DBAPIError as error:
            raise _unavailable(self.engine.url, error) from error
        known = _versions()
        if current != known[-1]:
            raise CatalogOutdated(
                f"The catalog is at version {current or 'none'}, this Konveyer needs {known[-1]}.",
                hint="run 'konveyer init --upgrade' in the workspace",
            )

    def _refuse_newer(self, connection: Connection) -> str | None:
        """The version that the catalog is at; None when it is empty."""
        if not inspect(connection).has_table(_VERSION_TABLE):
            return None
        current: str | None = connection.exec_driver_sql(
            f"SELECT version_num FROM {_VERSION_TABLE}"  # noqa: S608 - a constant
        ).scalar()
        if current is not None and current not in _versions():
            raise CatalogNewer(
                f"The catalog is at version {current}, which this Konveyer does not know.",
                hint="it was written by a newer Konveyer: upgrade this one",
            )
        return current

    def close(self) -> None:
        self.engine.dispose()


def _unavailable(url: URL, error: DBAPIError) -> CatalogUnavailable:
    """Without the password."""
    reason = str(error.orig).strip().splitlines()
    is_file = url.get_backend_name() == "sqlite"
    works = "its disk works and has room" if is_file else "the database is up"
    return CatalogUnavailable(
        f"The catalog {url.render_as_string(hide_password=True)} cannot be used: "
        f"{reason[0] if reason else error.__class__.__name__}",
        hint=f"see that {works} and that [catalog] url in konveyer.toml is right",
    )


def _versions() -> list[str]:
    """The known versions, oldest first: a migration's file is named `<version>_<what>.py`."""
    return sorted(path.name.partition("_")[0] for path in MIGRATIONS.glob("versions/*_*.py"))


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: `_begin` does.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    reads = bool(connection.get_execution_options().get(_SQLITE_READS))
    connection.exec_driver_sql(f"PRAGMA query_only = {reads}")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _begin_alone(connection: Connection) -> None:
    if not connection.get_execution_options().get("postgresql_readonly"):
        connection.exec_driver_sql(_ONE_WRITER)
