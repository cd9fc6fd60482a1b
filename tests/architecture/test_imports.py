"""What starts fast must stay light, and packages must not run code when they are merely passed."""

import subprocess
import sys
from pathlib import Path

import konveyer

PACKAGE = Path(konveyer.__file__).parent


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def test_importing_konveyer_loads_nothing_but_itself() -> None:
    loaded = modules_after("import konveyer")
    third_party = {"numpy", "pyarrow", "sqlalchemy", "msgspec", "click", "duckdb"}
    assert not loaded & third_party


def test_a_worker_that_joins_a_bucket_loads_what_the_job_needs() -> None:
    """Every worker of Spark is a process that imports it anew."""
    jobs = "konveyer.feature_store.engines.jobs, konveyer.feature_store.datamart.spines"
    loaded = modules_after(f"import {jobs}")
    heavy = {"pandas", "pyarrow.dataset", "deltalake", "polars", "pyspark", "sqlalchemy", "sqlglot"}
    assert not loaded & heavy


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    loaded = modules_after("import konveyer.cli.main")
    heavy = {"numpy", "pyarrow", "sqlalchemy", "duckdb", "deltalake", "dbos", "mlflow", "polars"}
    assert not loaded & heavy


def test_commands_that_open_the_feature_store_do_not_wait_for_pandas() -> None:
    store = "konveyer.feature_store.offline.delta, konveyer.feature_store.engines.duckdb"
    assert not modules_after(f"import {store}") & {"pandas"}


def test_inner_packages_run_no_code() -> None:
    inner = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert inner
    assert [str(path) for path in inner if path.read_text().strip()] == []
