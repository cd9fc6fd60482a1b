"""The benchmark of the Spark engine runs, and its answers are those of its peer and of DuckDB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.spark
ROOT = Path(__file__).parents[2]


def test_a_quick_run_compares_every_cell_and_prints_a_line_for_each_peer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.features.run", "--quick", "--here"]
    command += ["--rounds", "1", "--folder", str(tmp_path), "--only", "spark"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["peer"] for line in lines] == ["spark-union", "ours-duckdb"]
    for peer in ("spark-union", "ours-duckdb"):
        assert f"every cell of {peer} equals ours" in done.stderr
    # Spark works in other processes, which count too.
    assert lines[0]["ours_peak_rss_mb"] > lines[1]["peer_peak_rss_mb"]
