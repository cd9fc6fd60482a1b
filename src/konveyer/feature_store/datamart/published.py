"""What should be online: the offline features of given entities, as the last ETL run saw them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from konveyer.catalog.session import Catalog
from konveyer.core.schema import arrow_schema
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.kernel.evaluate import evaluate
from konveyer.feature_store.kernel.history import history_of
from konveyer.feature_store.offline.delta import DeltaOfflineStore
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
    names = [key.name for key in service.keys]
    columns = [list(column) for column in zip(*keys, strict=True)]
    spine = pa.table(columns, schema=arrow_schema(service.keys))
    values: dict[tuple[str, str], list[object]] = {}
    for view in service.views:
        with catalog.transaction() as session:
            ref, run = readable_table(session, view.name, view.version)
            plan = compiled_view(session, view.name, view.version).plan
        at_us = np.full(len(spine), run.as_of_us, np.int64)
        own = spine.select([name for name in names if name in plan.keys])
        # An entity is in one bucket; in the others it has no rows and gives nothing.
        parts = list(
            engine.map(
                lambda bucket, ref=ref: history_of(offline.read(ref, bucket), plan.keys),  # type: ignore[misc]
                range(ref.buckets),
            )
        )
        for history in parts:
            table = evaluate(plan, history, own, at_us)
            for column in table.column_names:
                array = table.column(column)
                if pa.types.is_timestamp(array.type):
                    array = array.cast(pa.int64())
                found = array.to_pylist()
                before = values.get((view.name, column))
                values[view.name, column] = (
                    found
                    if before is None
                    else [new or old for new, old in zip(found, before, strict=True)]
                )
    picked = [values[feature.view, feature.feature] for feature in service.features]
    return list(zip(*picked, strict=True))
