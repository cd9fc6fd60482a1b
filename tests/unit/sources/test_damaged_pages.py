"""A Parquet file whose pages are damaged is the source's fault, not that of the SQL."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.feature_store.engines.base import SourceUnreadable
from konveyer.feature_store.engines.duckdb import DuckDBEngine


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_damaged_page_is_told_from_wrong_sql(tmp_path: Path, compression: str) -> None:
    random, engine, path = np.random.default_rng(0), DuckDBEngine(), tmp_path / "rows.parquet"
    columns = {"a": random.integers(0, 10**9, 5_000), "b": [str(n) * 3 for n in range(5_000)]}
    pq.write_table(pa.table(columns), path, compression=compression)
    whole = path.read_bytes()
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for _ in range(40):
        damaged, at = bytearray(whole), int(random.integers(4, pages - 40))
        damaged[at : at + 32] = bytes(random.integers(0, 256, 32, dtype=np.uint8))
        path.write_bytes(damaged)
        engine.attach_parquet("rows", [str(path)])
        try:
            engine.query("SELECT sum(a), max(length(b)) FROM rows")
        except SourceUnreadable:
            refused += 1
    engine.close()
    assert refused > 10
