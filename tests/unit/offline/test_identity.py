"""The digest of a key is the same in SQL and in Python, and its rows are found in files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.offline.identity import (
    digest_sql,
    key_digest,
    rewrite_without,
    rows_in_file,
)

KEYS = (
    ScalarColumn("name", ColumnType.STRING),
    ScalarColumn("number", ColumnType.INT64),
    ScalarColumn("id", ColumnType.UUID),
)
UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize("name", ["", "ana", "o'neill", "né", "日本", "🙂", "1:2", "e\u0301"])
@pytest.mark.parametrize("number", [0, -5, 2**62])
def test_sql_and_python_agree(name: str, number: int) -> None:
    engine = DuckDBEngine()
    rows = pa.table({"name": [name], "number": [number], "id": [UUID.upper()]})
    engine.attach_table("people", rows)
    found = engine.query(f"SELECT {digest_sql(KEYS)} AS digest FROM people")
    engine.close()
    assert found["digest"].to_pylist() == [key_digest([name, number, UUID])]


def test_rows_are_found_in_files_and_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "bucket=0" / "part.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"name": ["a", "b", "a"], "number": [1, 1, 2]}), path)
    assert rows_in_file(path, {"name": "a"}) == 2
    rewrite_without(path, {"name": "a", "number": 2})
    assert pq.read_table(path, partitioning=None).to_pydict() == {
        "name": ["a", "b"],
        "number": [1, 1],
    }
    (tmp_path / "half.parquet").write_bytes(b"PAR1 unfinished")
    assert rows_in_file(tmp_path / "half.parquet", {"name": "a"}) == 0
    assert rows_in_file(tmp_path / "gone.parquet", {"name": "a"}) == 0
    rewrite_without(tmp_path / "gone.parquet", {"name": "a"})
