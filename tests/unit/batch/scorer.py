"""A feature store with a released model, scored in batches without a worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source
from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.bundle.manifest import MODEL, Batch
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.execution.batch.flow import BatchServices, batch_flow
from konveyer.execution.batch.order import BatchOrder, Given
from konveyer.execution.batch.output import table_of
from konveyer.execution.batch.plan import plan_batch
from konveyer.execution.batch.runs import BatchRun, periods_of
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import release_row, set_live
from konveyer.execution.releases.service import open_release
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from tests.manifests import manifest_with
from tests.unit.etl.store import PlainSteps, Store, opened_store

ADMIN = Actor("admin", frozenset({Role.ADMINISTRATOR}))
NOW = "2026-01-11T00:00:00Z"
DAY_US = 86_400_000_000
CLIENT = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
PAYMENTS = Source(name="payments", path="payments.parquet", event_time="at")
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(column="amount", function="sum", over="3d"),
        Aggregation(column="amount", function="count", over="3d"),
        Aggregation(column="city", function="last", over="30d"),
    ),
)
SCORING = FeatureService(name="scoring", features=("spend",))
DEFINITIONS: tuple[Definition, ...] = (CLIENT, PAYMENTS, SPEND, SCORING)


def write_payments(root: Path, clients: int = 40) -> None:
    """Each client pays every day from its number of days after the first of January."""
    rows = [
        {
            "client_id": client,
            "at": parse_instant("2026-01-01T12:00:00Z") + (day + client % 3) * DAY_US,
            "amount": float(client * 10 + day),
            "city": ("Oslo", "Rome", None)[client % 3],
        }
        for client in range(clients)
        for day in range(8)
    ]
    table = pa.Table.from_pylist(rows)
    moments = table.column("at").cast(pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(1, "at", moments), root / "payments.parquet")


def packed(bundles: BundleStore, service: ResolvedService, *, seed: int = 1, **more: Any) -> Bundle:
    rng = np.random.default_rng(seed)
    names = [column.name for column in service.columns]
    rows = rng.normal(size=(400, len(names))) * 100
    text = [place for place, column in enumerate(service.columns) if column.dtype == "string"]
    for place in text:
        rows[:, place] = rng.integers(0, 2, 400)
    data = lgb.Dataset(rows, rows[:, 0] + rng.normal(size=400), categorical_feature=text)
    booster = lgb.train({"verbosity": -1, "objective": "regression", "seed": seed}, data, 10)
    manifest = manifest_with(
        created_us=seed,
        service=service,
        categories={service.columns[place].name: ("Oslo", "Rome") for place in text},
        **more,
    )

    def write(folder: Path) -> None:
        (folder / MODEL).parent.mkdir()
        booster.save_model(str(folder / MODEL))

    return bundles.pack(manifest, write)


@dataclass(frozen=True)
class Scorer:
    """Scores with the live model; every call acts as the administrator."""

    store: Store
    services: BatchServices

    @property
    def root(self) -> Path:
        return self.store.services.root

    @property
    def table(self) -> Path:
        return table_of(self.services.scores, "scoring", 1).folder

    def release(
        self, *, seed: int = 1, every: str | None = None, state: State = State.LIVE
    ) -> Bundle:
        batch = None if every is None else Batch(every=every)
        with self.services.catalog.transaction() as session:
            service = resolve_service(session, active_state(session), "scoring")
            bundle = packed(self.services.bundles, service, seed=seed, batch=batch)
            release = open_release(session, self.store.admin, bundle)
            row = release_row(session, release)
            row.state = str(state)
            set_live(session, "prod", row)
        return bundle

    def plan(
        self, *moments: str, given: Given | None = None, actor: Actor | None = None
    ) -> BatchOrder:
        with self.services.catalog.reading() as session:
            return plan_batch(
                session,
                actor or self.store.admin,
                self.services.bundles,
                "scoring/v1",
                moments_us=[parse_instant(moment) for moment in moments or (NOW,)],
                given=given,
            )

    def run(self, order: BatchOrder) -> list[BatchRun]:
        batch_flow(self.services).run(PlainSteps(), msgspec.to_builtins(order))
        return self.periods(order)

    def periods(self, order: BatchOrder) -> list[BatchRun]:
        with self.services.catalog.reading() as session:
            return periods_of(session, order.run_id)

    def rows(self) -> list[dict[str, Any]]:
        """All scores, as any reader of Delta sees them."""
        found = DeltaTable(str(self.table)).to_pyarrow_table().to_pylist()
        return sorted(found, key=lambda row: (row["period"], row["client_id"], row["event_time"]))

    def left(self) -> Sequence[str]:
        """What is beside the table, or in the folder of staging, and should not be."""
        drafts = self.table.parent / ".drafts"
        return [path.name for place in (drafts, self.services.staging) for path in place.glob("*")]


@contextmanager
def opened_scorer(root: Path, engine: Engine | None = None) -> Iterator[Scorer]:
    write_payments(root)
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    catalog.migrate()
    with opened_store(catalog, ADMIN, root, now=NOW, engine=engine) as store:
        store.apply(*DEFINITIONS)
        store.etl()
        services = BatchServices(
            catalog=catalog,
            bundles=BundleStore(root / "bundles"),
            engine=store.services.engine,
            offline=store.services.offline,
            scores=root / "scores",
            staging=root / "state" / "scoring",
            environments=root / "state" / "venvs",
        )
        yield Scorer(store, services)
    catalog.close()
