"""A store with pushed sources, for tests: definitions, pushes at a moment, and what is kept."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import select

from konveyer import (
    Aggregation,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    JoinKey,
    PushedColumn,
    Source,
)
from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock, parse_instant
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.runs import EtlRun, list_runs
from konveyer.feature_store.push.accept import Push, Pusher
from konveyer.feature_store.sources.pushes import PushRow, stored_segments
from tests.unit.etl.store import Store, opened_store

NOW = "2026-02-01T00:00:00Z"
CLIENT = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
PAYMENTS = Source(
    name="payments",
    pushed=(
        PushedColumn("client", "int64"),
        PushedColumn("paid_at", "timestamp"),
        PushedColumn("amount", "float64", minimum=0, maximum=1000),
        PushedColumn("shop", "string", one_of=("web", "branch")),
    ),
    event_time="paid_at",
)
SPEND = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(column="amount", function="sum", over="7d", name="spent"),
        Aggregation(function="count", over="unbounded", name="times"),
        Aggregation(column="shop", function="last", over="unbounded", name="last_shop"),
    ),
    accuracy="exact",
)
NEWEST = FeatureView(
    name="newest",
    entity="client",
    sql="SELECT client, paid_at AS event_time, created_time, amount AS last_amount FROM payments",
    features=(Feature(name="last_amount", dtype="float64"),),
    accuracy="exact",
)
SCORING = FeatureService(name="scoring", features=("spend", "newest"))
DEFINITIONS: tuple[Definition, ...] = (CLIENT, PAYMENTS, SPEND, NEWEST, SCORING)


def payment(
    client: int | None, at: str | None, amount: Any = 1.0, shop: Any = "web"
) -> dict[str, Any]:
    """A payment at a time of January 2026, such as `31T12:00`."""
    paid_at = None if at is None else f"2026-01-{at}"
    return {"client": client, "paid_at": paid_at, "amount": amount, "shop": shop}


@dataclass(frozen=True)
class Till:
    """A store, and pushes to it; every call acts as the administrator."""

    store: Store

    @property
    def root(self) -> Path:
        return self.store.services.root

    def pusher(self, now: str = NOW) -> Pusher:
        clock = FeatureClock(parse_instant(now))
        return Pusher(self.store.services, clock, held=lambda _session: ())

    def push(self, rows: Any, *, key: str, source: str = "payments", now: str = NOW) -> Push:
        return self.pusher(now).push(self.store.admin, source, rows, key=key)

    def online(self, *clients: int) -> list[Any]:
        return self.store.online(*((client,) for client in clients))

    def pushes(self) -> list[PushRow]:
        with self.store.services.catalog.reading() as session:
            return list(session.scalars(select(PushRow).order_by(PushRow.number)))

    def listed(self, source: str = "payments") -> list[str]:
        """The segments that the catalog lists."""
        with self.store.services.catalog.reading() as session:
            return [one.name for one in stored_segments(session)[source]]

    def segments(self, source: str = "payments") -> list[Path]:
        return sorted((self.root / "state/pushed" / source).glob("*.parquet"))

    def kept(self, source: str = "payments") -> list[dict[str, Any]]:
        """All rows on disk, listed or not."""
        tables = [pq.read_table(file) for file in self.segments(source)]
        return pa.concat_tables(tables).to_pylist() if tables else []

    def trained(self, clients: Sequence[int], at: str = NOW) -> list[Any]:
        """The features of clients at a moment, as a training set has them."""
        moments = pa.array([parse_instant(at)] * len(clients)).cast(pa.timestamp("us", tz="UTC"))
        labels = pa.table({"client": pa.array(clients, pa.int64()), "at": moments})
        table = self.store.training_set(labels).table
        names = [name for name in table.column_names if name not in ("client", "at")]
        return [tuple(row.values()) for row in table.select(names).to_pylist()]

    def runs(self, view: str) -> list[EtlRun]:
        with self.store.services.catalog.reading() as session:
            return list_runs(session, view=view)


@contextmanager
def opened_till(
    catalog: Catalog,
    admin: Actor,
    root: Path,
    *definitions: Definition,
    engine: Engine | None = None,
) -> Iterator[Till]:
    with opened_store(catalog, admin, root, now=NOW, engine=engine) as store:
        store.apply(*(definitions or DEFINITIONS))
        yield Till(store)
