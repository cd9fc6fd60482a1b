"""What should be online: the offline features of given entities, as the last ETL run saw them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from konveyer.catalog.session import Catalog
from konveyer.core.schema import arrow_schema
from konveyer.feature_store.datamart.training_set import places_by_bucket
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.evaluate import evaluate
from konveyer.feature_store.kernel.history import history_of
from konveyer.feature_store.offline.delta import DeltaOfflineStore, TableRef
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import compiled_view


def published_features(
    catalog: Catalog,
    engine: Engine,
    offline: DeltaOfflineStore,
    service: ResolvedService,
    keys: Sequence[Sequence[int | str]],
) -> list[tuple[object, ...]]:
    """The features of each entity, in the order of the service; `keys` in that of its keys.

    Instants are microseconds, as an online read gives them.
    """
    columns = [list(column) for column in zip(*keys, strict=True)]
    spine = pa.table(columns, schema=arrow_schema(service.keys))
    values: dict[tuple[str, str], list[object]] = {}
    for view in service.views:
        with catalog.reading() as session:
            ref, run = readable_table(session, view.name, view.version)
            compiled = compiled_view(session, view.name, view.version)
        table = _evaluated(compiled, ref, spine, run.as_of_us, engine=engine, offline=offline)
        values |= {(view.name, name): _plain(table.column(name)) for name in table.column_names}
    picked = [values[feature.view, feature.feature] for feature in service.features]
    return list(zip(*picked, strict=True))


def _evaluated(
    compiled: CompiledView,
    ref: TableRef,
    spine: pa.Table,
    as_of_us: int,
    *,
    engine: Engine,
    offline: DeltaOfflineStore,
) -> pa.Table:
    plan, keys = compiled.plan, compiled.layout.keys
    own = spine.select(list(plan.keys))
    places = places_by_bucket(own, keys, ref.buckets, engine)

    def one(bucket: int) -> pa.Table:
        mine = own.take(pa.array(places[bucket]))
        at_us = np.full(len(mine), as_of_us, np.int64)
        return evaluate(plan, history_of(offline.read(ref, bucket), plan.keys), mine, at_us)

    parts = pa.concat_tables(engine.map(one, range(ref.buckets)))
    return parts.take(pa.array(np.argsort(np.concatenate(places), kind="stable")))


def _plain(column: pa.ChunkedArray) -> list[object]:
    values: list[object] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values
