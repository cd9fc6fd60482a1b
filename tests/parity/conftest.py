"""Spark, started once for the tests of a module."""

from collections.abc import Iterator

import pytest

from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.engines.spark import SparkEngine
from tests.support import QUICK_SPARK


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkEngine]:
    engine = SparkEngine(f"spark:local[2]?{QUICK_SPARK}")
    yield engine
    engine.close()


@pytest.fixture(params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest, spark: SparkEngine) -> Iterator[Engine]:
    if request.param == "spark":
        yield spark
    else:
        duckdb = DuckDBEngine()
        yield duckdb
        duckdb.close()
