"""A feature store in one folder, driven without a worker: definitions in, rows and errors out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.datamart.show import ViewDetails, show_view
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.etl import flow
from konveyer.feature_store.etl.flow import EtlFailed, EtlServices
from konveyer.feature_store.etl.pins import Pin
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.etl.runs import EtlRun, list_runs, readable_table
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.registry.apply import apply
from konveyer.feature_store.registry.check import Checked, check_definitions
from konveyer.feature_store.registry.lookup import active_state, reformed_sources
from konveyer.feature_store.registry.plan import Change, plan_apply
from konveyer.feature_store.registry.state import registry_state

ADMIN = Actor("admin", frozenset({Role.ADMINISTRATOR}))
NOW = parse_instant("2026-01-10T12:00:00Z")


@dataclass(frozen=True)
class Desk:
    """Where a test applies definitions, runs ETL and looks at what came of it."""

    services: EtlServices

    @property
    def root(self) -> Path:
        return self.services.root

    def with_databases(self, **urls: str) -> "Desk":
        return Desk(replace(self.services, databases=urls))

    def check(self, *definitions: Definition) -> Checked:
        state = registry_state(definitions)
        return check_definitions(state, self.services.engine, self.services.places)

    def refusal(self, *definitions: Definition) -> KonveyerError:
        """The error of definitions that must not pass `apply`."""
        with pytest.raises(KonveyerError) as caught:
            self.check(*definitions)
        assert caught.value.hint
        return caught.value

    def apply(self, *definitions: Definition) -> tuple[Change, ...]:
        checked = self.check(*definitions)
        with self.services.catalog.transaction() as session:
            current = active_state(session)
            reformed = reformed_sources(session, current, checked.sources)
            plan = plan_apply(current, checked.state, reformed)
            apply(session, ADMIN, plan, checked)
        return plan.changes

    def etl(self, *views: str, pins: Sequence[Pin] = ()) -> None:
        with self.services.catalog.transaction() as session:
            plan = plan_etl(session, ADMIN, views, as_of_us=NOW, pins=pins)
        flow.etl_flow(self.services).run(_PlainSteps(), msgspec.to_builtins(plan))

    def failure(self, view: str) -> dict[str, Any]:
        """The error of an ETL run that must fail, after which what was readable still is, and
        nothing is left of what was read."""
        before = self.readable(view)
        with pytest.raises(EtlFailed):
            self.etl(view)
        run = self.runs(view)[0]
        assert run.error is not None
        assert run.error["hint"]
        assert f"Feature view '{view}'" in run.error["message"]
        assert self.readable(view) == before
        assert self.staged() == []
        return run.error

    def readable(self, view: str) -> tuple[int, list[dict[str, Any]]] | None:
        """The version of the offline table that readers get, and its rows."""
        with self.services.catalog.reading() as session:
            version = active_state(session).versions
            key = next(key for key in version if key[1] == view and key[0] == "view")
            try:
                ref, _ = readable_table(session, view, version[key])
            except KonveyerError:
                return None
        table = self.services.offline.open(ref)
        parts = [table.read(bucket).table for bucket in range(ref.buckets)]
        return ref.table_version, pa.concat_tables(parts).to_pylist()

    def rows(self, view: str, *columns: str) -> list[tuple[Any, ...]]:
        readable = self.readable(view)
        assert readable is not None
        return [tuple(row[column] for column in columns) for row in readable[1]]

    def staged(self) -> list[str]:
        return [path.name for path in self.root.glob("state/reading/*") if path.is_dir()]

    def runs(self, view: str) -> list[EtlRun]:
        with self.services.catalog.reading() as session:
            return list_runs(session, view=view)

    def show(self, view: str) -> ViewDetails:
        with self.services.catalog.reading() as session:
            return show_view(session, view)


class _PlainSteps:
    def step(self, _name: str, work: Callable[[], Any]) -> Any:
        return work()


@contextmanager
def opened_desk(root: Path) -> Iterator[Desk]:
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    catalog.migrate()
    engine = DuckDBEngine()
    yield Desk(
        EtlServices(
            catalog=catalog,
            engine=engine,
            offline=DeltaOfflineStore(root / "offline"),
            online=MemoryOnlineStore(),
            root=root,
        )
    )
    engine.close()
    catalog.close()
