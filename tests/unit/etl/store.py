"""A feature store with its ETL, driven without a worker, for tests on small data."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock, parse_instant
from konveyer.feature_store.datamart.label_files import LabelFiles
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.manifest import TrainingSet
from konveyer.feature_store.datamart.training_set import build_training_set, rebuild_training_set
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.etl import flow
from konveyer.feature_store.etl.flow import EtlServices
from konveyer.feature_store.etl.pins import Pin
from konveyer.feature_store.etl.plan import plan_etl
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.online.memory import MemoryOnlineStore
from konveyer.feature_store.registry.apply import apply
from konveyer.feature_store.registry.check import Checked, check_definitions
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.feature_store.registry.plan import plan_apply
from konveyer.feature_store.registry.state import registry_state


@dataclass(frozen=True)
class Store:
    """One feature store; every call acts as the administrator."""

    services: EtlServices
    admin: Actor
    now_us: int

    def apply(self, *definitions: Definition) -> None:
        checked = self.check(*definitions)
        with self.services.catalog.transaction() as session:
            apply(session, self.admin, plan_apply(active_state(session), checked.state), checked)

    def check(self, *definitions: Definition) -> Checked:
        state = registry_state(definitions)
        return check_definitions(state, self.services.engine, self.services.places)

    def etl(self, *views: str, pins: Sequence[Pin] = ()) -> None:
        self.planned(views, pins, again=False)()

    def publish(self, *views: str) -> None:
        """Put what is readable online once more."""
        self.planned(views, (), again=True)()

    def planned(
        self, views: Sequence[str], pins: Sequence[Pin], *, again: bool
    ) -> Callable[[], object]:
        """A run; called once more, it goes on after a kill."""
        with self.services.catalog.reading() as session:
            plan = plan_etl(
                session, self.admin, views, as_of_us=self.now_us, pins=pins, again=again
            )
        return partial(flow.etl_flow(self.services).run, PlainSteps(), msgspec.to_builtins(plan))

    def training_set(
        self,
        labels: pa.Table | LabelFiles,
        *,
        service: str = "scoring",
        timestamp: str = "at",
        label: str | None = None,
        **options: Any,
    ) -> TrainingSet:
        return build_training_set(
            self.services.catalog,
            self.admin,
            self.services.engine,
            self.services.offline,
            service=service,
            labels=labels,
            timestamp=timestamp,
            label=label,
            folder=self.training_sets,
            **options,
        )

    @property
    def training_sets(self) -> Path:
        return self.services.root / "training_sets"

    def rebuilt(self, built: TrainingSet, labels: pa.Table | LabelFiles) -> pa.Table:
        services = self.services
        rebuilt = rebuild_training_set(
            services.catalog,
            self.admin,
            services.engine,
            services.offline,
            built.manifest,
            labels,
            folder=self.training_sets,
        )
        with rebuilt as again:
            return again.table

    def online(
        self,
        *keys: tuple[Any, ...],
        requests: Sequence[Sequence[Any]] = (),
        now_us: int | None = None,
    ) -> list[Any]:
        with self.services.catalog.reading() as session:
            service = resolve_service(session, active_state(session), "scoring")
        lookup = OnlineLookup(
            service, self.services.online, FeatureClock(self.now_us if now_us is None else now_us)
        )
        return lookup.rows(keys, requests)


class PlainSteps:
    def step(self, _name: str, work: Callable[[], Any]) -> Any:
        return work()


@contextmanager
def opened_store(
    catalog: Catalog, admin: Actor, root: Path, *, now: str, engine: Engine | None = None
) -> Iterator[Store]:
    """A store on `catalog`, with its tables under `root` and its records in memory.

    On DuckDB, unless `engine` is given, which stays open.
    """
    used = engine or DuckDBEngine()
    services = EtlServices(
        catalog=catalog,
        engine=used,
        offline=DeltaOfflineStore(root / "offline"),
        online=MemoryOnlineStore(),
        root=root,
    )
    yield Store(services, admin, parse_instant(now))
    if engine is None:
        used.close()
