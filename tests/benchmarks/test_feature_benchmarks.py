"""The benchmark of the feature engine runs, and prints no ratio of answers that differ."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks.features.compare import Difference, rows_lost
from benchmarks.features.lines import Measured, growth_lines, peer_line, typical

ROOT = Path(__file__).parents[2]
FIELDS = {
    "bench",
    "ours",
    "peer",
    "peer_value",
    "ratio",
    "unit",
    "ours_peak_rss_mb",
    "peer_peak_rss_mb",
}
FRAME = pl.DataFrame(
    {"client_id": [1, 2, 3], "label_timestamp": [10, 10, 20], "visits": [5, None, 7]}
)


@pytest.mark.slow
def test_a_quick_run_prints_a_line_for_each_bench_and_peer(tmp_path: Path) -> None:
    benches = ["point-in-time", "windows-dense", "windows-sparse"]
    peers = ["duckdb-asof", "duckdb-range-join", "polars"]
    command = [sys.executable, "-m", "benchmarks.features.run", "--quick", "--here"]
    command += ["--rounds", "1", "--folder", str(tmp_path), "--only", *benches, "--peers", *peers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["bench"], line["peer"]) for line in lines] == [
        ("point-in-time", "duckdb-asof"),
        ("point-in-time", "polars"),
        ("windows-dense", "duckdb-range-join"),
        ("windows-dense", "polars"),
        ("windows-sparse", "duckdb-range-join"),
        ("windows-sparse", "polars"),
        ("windows-dense", "ours-sparse"),
    ]
    for line in lines:
        assert line.keys() >= FIELDS
        assert line["ratio"] == pytest.approx(line["peer_value"] / line["ours"], rel=0.02)
        assert line["ours_peak_rss_mb"] > 0
    assert "every cell of polars equals ours" in done.stderr


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (FRAME.with_columns(visits=pl.lit(5)), "'visits' differ, first where client_id 2.*None.*5"),
        (FRAME.head(2), "lacks 1 of our rows.*'client_id': 3"),
        (pl.concat([FRAME, FRAME.head(1) + 100]), "has 1 that we lack.*'client_id': 101"),
        (pl.concat([FRAME, FRAME.head(1)]), "peer has rows with equal client_id"),
        (FRAME.rename({"visits": "calls"}), "columns"),
    ],
    ids=["cell", "lost", "extra", "repeated", "columns"],
)
def test_a_difference_is_an_error_that_says_where(changed: pl.DataFrame, told: str) -> None:
    with pytest.raises(Difference, match=told):
        rows_lost(FRAME, changed, may_lose_rows=False)


def test_rows_that_a_peer_may_lose_are_counted_and_the_others_compared() -> None:
    assert rows_lost(FRAME, FRAME.tail(1), may_lose_rows=True) == 2
    with pytest.raises(Difference, match=r"ours 7\.0, peer 8\.0"):
        rows_lost(FRAME, FRAME.tail(1).with_columns(visits=pl.lit(8)), may_lose_rows=True)


def test_a_peer_may_hold_whole_numbers_as_floats_and_instants_in_other_units() -> None:
    instants = FRAME.with_columns(pl.col("label_timestamp").cast(pl.Datetime("us", "UTC")))
    other = instants.with_columns(
        pl.col("visits").cast(pl.Float64), pl.col("label_timestamp").dt.cast_time_unit("ns")
    )
    assert rows_lost(instants, other.reverse(), may_lose_rows=False) == 0


@pytest.fixture
def measured() -> Callable[..., Measured]:
    def make(seconds: float, peak_rss_mb: float = 100.0) -> Measured:
        return Measured(seconds=seconds, cpu_seconds=seconds, peak_rss_mb=peak_rss_mb)

    return make


def test_several_runs_count_as_their_median_time_and_highest_peak(
    measured: Callable[..., Measured],
) -> None:
    assert typical([measured(9, 1), measured(2, 3), measured(3, 2)]) == Measured(
        seconds=3, cpu_seconds=3, peak_rss_mb=3
    )


def test_a_ratio_above_one_means_that_we_are_better(measured: Callable[..., Measured]) -> None:
    line = peer_line("online-1", "us", measured(2e-6), "feast-sqlite", measured(6e-6))
    assert (line["ours"], line["peer_value"], line["ratio"]) == (2.0, 6.0, 3.0)


def test_growth_is_told_as_an_exponent_and_the_memory_of_the_last_doubling(
    measured: Callable[..., Measured],
) -> None:
    lines: list[dict[str, Any]] = growth_lines(
        {1: measured(1), 2: measured(2), 4: measured(8, 200), 8: measured(8, 250)}
    )
    *times, memory = lines
    names = ("history", "exponent", "doubling_exponent")
    assert [tuple(line[name] for name in names) for line in times] == [
        ("2x", 1.0, 1.0),
        ("4x", 1.5, 2.0),
        ("8x", 1.0, 0.0),
    ]
    assert times[1]["ratio"] == 0.5
    assert (memory["unit"], memory["growth_percent"], memory["ratio"]) == ("MB", 25, 0.8)
