"""The catalog keeps the same promises on SQLite and on PostgreSQL."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.people import (
    BadPersonName,
    PersonExists,
    PersonNotFound,
    add_first_administrator,
    add_person,
    list_people,
)
from konveyer.access.roles import Role
from konveyer.access.tokens import (
    TokenExpired,
    TokenRevoked,
    TokenUnknown,
    authenticate,
    issue_token,
    revoke_tokens,
)
from konveyer.catalog import audit, leases
from konveyer.catalog.leases import LeaseHeld, holder_of, lease
from konveyer.catalog.outages import lasting
from konveyer.catalog.session import Catalog, CatalogNewer, CatalogOutdated
from tests.outages import failing
from tests.support import wait_for


def test_migrating_twice_is_harmless_and_gives_the_tables_that_the_code_has(
    catalog: Catalog,
) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    import konveyer.access.tables
    import konveyer.catalog.leases
    import konveyer.execution.batch.tables
    import konveyer.execution.releases.tables
    import konveyer.feature_store.datamart.tables
    import konveyer.feature_store.etl.tables
    import konveyer.feature_store.registry.tables
    import konveyer.feature_store.sources.pushes  # noqa: F401
    from konveyer.catalog.base import Base

    catalog.migrate()
    catalog.check_version()
    with catalog.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert difference == []


def test_a_catalog_of_a_newer_version_is_refused(catalog: Catalog) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogNewer, match="9999"):
        catalog.check_version()
    with pytest.raises(CatalogNewer):
        catalog.migrate()


def test_a_catalog_that_was_never_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogOutdated):
        Catalog(f"sqlite:///{tmp_path}/new.db").check_version()


def test_a_reader_sees_one_moment_waits_for_no_writer_and_writes_nothing(catalog: Catalog) -> None:
    with catalog.reading() as before, catalog.transaction() as session:
        assert list_people(before) == []
        add_first_administrator(session, "admin")
        session.flush()
        with catalog.reading() as meanwhile:
            assert list_people(meanwhile) == []
        session.commit()
        assert list_people(before) == []
    with catalog.reading() as after:
        assert [person.name for person in list_people(after)] == ["admin"]
        with pytest.raises(DBAPIError):
            after.execute(text("DELETE FROM people"))


def test_an_error_in_a_transaction_leaves_nothing(catalog: Catalog) -> None:
    def half_done() -> None:
        with catalog.transaction() as session:
            audit.record(session, "ana", "did", "thing", "x")
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_done()
    with catalog.transaction() as session:
        assert audit.entries(session) == []


@pytest.mark.parametrize("change", ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"])
def test_the_audit_log_cannot_be_changed(catalog: Catalog, change: str) -> None:
    with catalog.transaction() as session:
        audit.record(session, "ana", "did", "thing", "x", how="well")
    with pytest.raises(DBAPIError, match="append-only"), catalog.engine.begin() as connection:
        connection.execute(text(change))
    with catalog.transaction() as session:
        (entry,) = audit.entries(session, subject="x")
    assert (entry.actor, entry.action, entry.detail) == ("ana", "did", {"how": "well"})


def test_concurrent_writers_wait_for_each_other_and_see_all_that_was_before(
    catalog: Catalog,
) -> None:
    def write() -> None:
        for _ in range(10):
            with catalog.transaction() as session:
                seen = len(audit.entries(session))
                audit.record(session, "ana", "did", "thing", str(seen))

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with catalog.transaction() as session:
        seen_by_each = {int(entry.subject) for entry in audit.entries(session)}
    assert seen_by_each == set(range(40))


def test_the_first_administrator_makes_the_other_accounts(catalog: Catalog) -> None:
    with catalog.transaction() as session:
        first = add_first_administrator(session, "root")
        actor = Actor(first.name, first.roles)
        add_person(session, actor, "ana", frozenset({Role.DATA_SCIENTIST}))
        assert [person.name for person in list_people(session)] == ["ana", "root"]
        with pytest.raises(PersonExists):
            add_first_administrator(session, "other")
        with pytest.raises(PersonExists):
            add_person(session, actor, "ana", frozenset({Role.QA}))
        with pytest.raises(BadPersonName):
            add_person(session, actor, "Ana B", frozenset({Role.QA}))
        ana = Actor("ana", frozenset({Role.DATA_SCIENTIST}))
        with pytest.raises(NotAllowed, match="manage people"):
            add_person(session, ana, "eva", frozenset({Role.ADMINISTRATOR}))
    with catalog.transaction() as session:
        made = [(entry.actor, entry.subject) for entry in audit.entries(session, kind="person")]
    assert made == [("root", "ana"), ("root", "root")]


def test_a_token_speaks_for_its_person_until_it_is_revoked(catalog: Catalog, admin: Actor) -> None:
    with catalog.transaction() as session:
        add_person(session, admin, "ana", frozenset({Role.QA}))
        token = issue_token(session, admin, "ana")
        with pytest.raises(PersonNotFound, match="nobody"):
            issue_token(session, admin, "nobody")
    with catalog.transaction() as session:
        assert authenticate(session, token) == Actor("ana", frozenset({Role.QA}))
        with pytest.raises(TokenUnknown):
            authenticate(session, token + "x")
        assert revoke_tokens(session, admin, "ana") == 1
        with pytest.raises(TokenRevoked):
            authenticate(session, token)


def test_a_token_expires(catalog: Catalog, admin: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    from konveyer.access import tokens
    from konveyer.core.clock import now_us

    with catalog.transaction() as session:
        add_person(session, admin, "ana", frozenset({Role.QA}))
        token = issue_token(session, admin, "ana", valid_days=1)
    monkeypatch.setattr(tokens, "now_us", lambda: now_us() + 86_400_000_001)
    with catalog.transaction() as session, pytest.raises(TokenExpired):
        authenticate(session, token)


def test_the_token_itself_is_kept_nowhere(catalog: Catalog, admin: Actor) -> None:
    with catalog.transaction() as session:
        add_person(session, admin, "ana", frozenset({Role.QA}))
        token = issue_token(session, admin, "ana")
    with catalog.engine.connect() as connection:
        for table in inspect(catalog.engine).get_table_names():
            rows = connection.execute(text(f"SELECT * FROM {table}")).all()
            assert token not in str(rows)


def test_one_holder_of_a_lease_at_a_time(catalog: Catalog) -> None:
    with lease(catalog, "worker", purpose="first"):
        with pytest.raises(LeaseHeld, match="first"), lease(catalog, "worker", purpose="second"):
            pass
        with lease(catalog, "other", purpose="second"):
            pass
    with catalog.transaction() as session:
        assert holder_of(session, "worker") is None


def test_a_dead_or_silent_holder_is_replaced(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 3600.0)
    with lease(catalog, "worker", purpose="killed"):
        with catalog.engine.begin() as connection:
            connection.execute(text("UPDATE leases SET pid = 2147483646"))
        with lease(catalog, "worker", purpose="next"), catalog.transaction() as session:
            holder = holder_of(session, "worker")
            assert holder is not None
            assert holder.purpose == "next"
    with lease(catalog, "worker", purpose="silent"):
        with catalog.engine.begin() as connection:
            connection.execute(text("UPDATE leases SET host = 'elsewhere', expires_us = 1"))
        with lease(catalog, "worker", purpose="next"):
            pass
    with lease(catalog, "worker", purpose="killed, and its id is another process's now"):
        with catalog.engine.begin() as connection:
            connection.execute(text("UPDATE leases SET owner = 'x@other', expires_us = 1"))
        with lease(catalog, "worker", purpose="next"):
            pass


def test_a_process_of_this_host_that_slept_still_holds_its_lease(catalog: Catalog) -> None:
    with lease(catalog, "worker", purpose="slept"):
        with catalog.engine.begin() as connection:
            connection.execute(text("UPDATE leases SET expires_us = 1"))
        with pytest.raises(LeaseHeld, match="slept"), lease(catalog, "worker", purpose="next"):
            pass


def test_a_holder_takes_its_lease_again_from_who_has_ended(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)

    def holder() -> str | None:
        with catalog.reading() as session:
            held = holder_of(session, "worker")
        return None if held is None else held.purpose

    with lease(catalog, "worker", purpose="first"):
        with catalog.engine.begin() as connection:
            connection.execute(text("DELETE FROM leases"))
        wait_for(lambda: holder() == "first")
    assert holder() is None


def test_a_process_whose_lease_another_one_holds_ends(catalog: Catalog) -> None:
    url = catalog.engine.url.render_as_string(hide_password=False)
    with subprocess.Popen([sys.executable, "-c", _HOLDS, url], stderr=subprocess.PIPE) as process:
        try:
            taken = "UPDATE leases SET owner = 'x', host = 'elsewhere', purpose = 'next'"
            wait_for(lambda: _changed(catalog, taken) == 1)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "could not renew its lease, and ends: The workspace is held by 'next'" in said.decode()


_HOLDS = """
import sys, time
from konveyer.catalog import leases
from konveyer.catalog.session import Catalog

leases.RENEW_EVERY_S = 0.05
with leases.lease(Catalog(sys.argv[1]), "worker", purpose="first"):
    time.sleep(60)
"""


def _changed(catalog: Catalog, statement: str) -> int:
    with catalog.engine.begin() as connection:
        return connection.execute(text(statement)).rowcount


def test_a_holder_outlives_a_catalog_that_is_away(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    with lease(catalog, "worker", purpose="first"), failing(catalog, 1, 2) as begun:
        wait_for(lambda: len(begun) > 3)


def test_work_that_asks_for_what_is_not_there_is_not_tried_for_ever(catalog: Catalog) -> None:
    def work() -> None:
        with catalog.reading() as session:
            session.execute(text("SELECT a FROM nowhere"))

    with pytest.raises(DBAPIError, match="nowhere"):
        lasting(catalog, work)
