"""How DuckDB is set up, and what its URL says."""

import tempfile
from pathlib import Path

import pytest

from konveyer.feature_store.engines.base import QueryFailed, SortedRows
from konveyer.feature_store.engines.duckdb import BadConfiguration, DuckDBEngine

# 32 MB of numbers, sorted the other way round.
ROWS = 4_000_000
SORTED = SortedRows(
    sql=f"SELECT {ROWS} - range AS n, range % 2 AS half FROM range({ROWS})",
    part="half",
    parts=2,
    order=("n",),
)


def test_what_does_not_fit_into_memory_is_sorted_on_disk_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    places = [tmp_path / "here", tmp_path / "temporary"]
    for place in places:
        place.mkdir()
    monkeypatch.chdir(places[0])
    engine = DuckDBEngine("duckdb:?memory_limit=40MB&threads=2")
    spilled: list[Path] = []

    def count(batches: object) -> int:
        rows = 0
        for batch in batches:  # type: ignore[attr-defined] # record batches
            spilled.extend((tmp_path / "temporary").rglob("duckdb_temp*"))
            rows += len(batch)
        return rows

    assert engine.map_rows(SORTED, count) == [ROWS]
    assert spilled
    engine.close()
    assert sorted(tmp_path.rglob("*")) == places


@pytest.mark.parametrize("options", ["memory=1GB", "memory_limit=much"])
def test_a_configuration_that_duckdb_does_not_know_is_an_error(options: str) -> None:
    with pytest.raises(BadConfiguration, match=options) as caught:
        DuckDBEngine(f"duckdb:?{options}")
    assert caught.value.hint == "correct the setting [engine] url"


def test_sql_that_needs_an_extension_is_refused_and_nothing_is_fetched() -> None:
    with pytest.raises(QueryFailed, match="it exists in the inet extension"):
        DuckDBEngine().query("SELECT CAST('10.0.0.1' AS INET) AS address")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT amount % profile_visits AS rest FROM (SELECT 1 AS amount, 0 AS profile_visits)",
        "SELECT amount // streams AS rest FROM (SELECT 1 AS amount, 0 AS streams)",
        "SELECT strptime(page, '%Y') AS year FROM (SELECT 'profile' AS page)",
    ],
)
def test_what_fails_over_columns_and_texts_named_like_files_is_wrong_sql(sql: str) -> None:
    with pytest.raises(QueryFailed, match=r"profile|streams") as caught:
        DuckDBEngine().query(sql)
    assert caught.value.hint == "correct the SQL of the definition"
