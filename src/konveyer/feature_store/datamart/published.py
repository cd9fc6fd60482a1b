"""What should be online, or should have been: the offline features of given entities."""

from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa

from konveyer.catalog.session import Catalog
from konveyer.core.infinite import in_words
from konveyer.core.schema import ColumnType, ScalarColumn, arrow_schema
from konveyer.feature_store.datamart.join import join_features
from konveyer.feature_store.datamart.on_demand import computed
from konveyer.feature_store.datamart.pinned import pin_views
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl.runs import readable_table
from konveyer.feature_store.offline.delta import DeltaOfflineStore


def published_features(
    catalog: Catalog,
    engine: Engine,
    offline: DeltaOfflineStore,
    service: ResolvedService,
    keys: Sequence[Sequence[int | str]],
    requests: Sequence[Sequence[object]],
    moments_us: Sequence[int] | None = None,
) -> list[tuple[object, ...]]:
    """The features of each entity, in the order of the service; `keys` in that of its keys.

    As the last ETL run saw them; with a moment for each, as they were then, at that run at the
    latest. `requests` are the request fields of each, instants as microseconds.
    Instants are microseconds, decimals and infinite numbers text, and a NaN is None, as the
    prediction log has them.
    """
    columns = [list(column) for column in zip(*keys, strict=True)]
    spine = pa.table(columns, schema=arrow_schema(service.keys))
    with catalog.reading() as session:
        views = pin_views(session, offline, service)
        runs = [readable_table(session, view.name, view.version)[1] for view in service.views]
    features: dict[str, pa.ChunkedArray] = {}
    for view, run in zip(views, runs, strict=True):
        at_us = np.full(len(spine), run.as_of_us, np.int64)
        if moments_us is not None:
            at_us = np.minimum(at_us, np.array(moments_us, np.int64))
        features |= join_features(spine, at_us, [view], engine=engine)
    features |= computed(service, features, _as_table(service.request, requests))
    return list(zip(*(_plain(features[f.name]) for f in service.features), strict=True))


def _as_table(fields: Sequence[ScalarColumn], rows: Sequence[Sequence[object]]) -> pa.Table:
    values = [[row[place] for row in rows] for place in range(len(fields))]
    arrays = [
        pa.array(column, pa.int64() if field.dtype is ColumnType.TIMESTAMP else field.dtype.arrow)
        for field, column in zip(fields, values, strict=True)
    ]
    plain = pa.table(arrays, names=[field.name for field in fields])
    return plain.cast(arrow_schema(fields))


def _plain(column: pa.ChunkedArray) -> list[object]:
    plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    return [_as_logged(value) for value in plain.to_pylist()]


def _as_logged(value: object) -> object:
    match value:
        case Decimal():
            return str(value)
        case list():
            return [_as_logged(item) for item in value]
        case _:
            return None if value != value else in_words(value)
