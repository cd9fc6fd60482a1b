"""Training sets are built in threads of one process, over one engine."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart.join import places_by_bucket
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.offline.layout import MOST_BUCKETS, bucket_numbers

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


@pytest.mark.parametrize("entities", [10, 2_000])
def test_a_table_may_have_the_most_buckets(entities: int) -> None:
    engine = DuckDBEngine()
    spine = pa.table({"client_id": np.arange(entities)})
    found = places_by_bucket(spine, KEYS, MOST_BUCKETS, engine)
    engine.close()
    assert len(found) == MOST_BUCKETS
    for place, number in enumerate(bucket_numbers(KEYS, spine).tolist()):
        assert place in found[number].tolist()
