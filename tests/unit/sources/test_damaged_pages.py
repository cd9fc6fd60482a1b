"""A Parquet file whose pages are damaged is the source's fault, not that of the SQL."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.feature_store.engines.base import JobFailed, SourceUnreadable
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


@pytest.mark.slow
def test_flipped_bytes_are_told_from_wrong_sql_wherever_they_are(tmp_path: Path) -> None:
    """Headers of pages and the footer too; and the engine goes on with other files after it."""
    engine, path, good = DuckDBEngine(), tmp_path / "rows.parquet", tmp_path / "good.parquet"
    pq.write_table(pa.table({"a": list(range(1_000)), "b": [1.5] * 1_000}), path)
    whole, refused = path.read_bytes(), 0
    good.write_bytes(whole)
    for at in [*range(4, 60), *range(4_090, 4_160), *range(len(whole) - 700, len(whole) - 8)]:
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            with engine.session() as session:
                session.attach_parquet("rows", [str(path)])
                session.query("SELECT * FROM rows")
        except (SourceUnreadable, JobFailed):
            refused += 1
    with engine.session() as session:
        session.attach_parquet("rows", [str(good)])
        assert session.query("SELECT sum(a) AS s FROM rows")["s"].to_pylist() == [499_500]
    engine.close()
    assert refused > 300
