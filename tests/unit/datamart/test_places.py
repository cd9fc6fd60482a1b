"""Training sets are built in threads of one process, over one engine."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.join import places_by_bucket
from konveyer.feature_store.engines.duckdb import DuckDBEngine

KEYS = (ScalarColumn("client_id", ColumnType.INT64),)


def test_spines_that_are_bucketed_at_the_same_time_do_not_mix() -> None:
    engine = DuckDBEngine()
    spines = [pa.table({"client_id": np.arange(n * 1000, n * 2000)}) for n in range(1, 20)]

    def places(spine: pa.Table) -> list[list[int]]:
        return [part.tolist() for part in places_by_bucket(spine, KEYS, 8, engine)]

    one_by_one = [places(spine) for spine in spines]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(places, spines))
    engine.close()
    assert at_once == one_by_one
    assert sorted(place for part in one_by_one[0] for place in part) == list(range(1000))
