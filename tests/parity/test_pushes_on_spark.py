"""ETL on Spark takes up what was pushed, while pushes land by an engine of their own process."""

from dataclasses import replace
from pathlib import Path

import pytest

from konveyer.access.actor import Actor
from konveyer.catalog.session import Catalog
from konveyer.core.clock import parse_instant
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.engines.spark import SparkEngine
from konveyer.feature_store.push.compaction import compact
from konveyer.feature_store.sources.segments import locked_pushes
from tests.unit.push.till import Till, opened_till, payment

pytestmark = pytest.mark.spark


def test_spark_takes_up_pushed_rows(spark: SparkEngine, admin: Actor, tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.migrate()
    near = DuckDBEngine()
    with opened_till(catalog, admin, tmp_path, engine=spark) as opened:
        services = replace(opened.store.services, near=near)
        till = Till(replace(opened.store, services=services))
        till.store.etl()
        assert till.runs("spend")[0].rows == 0
        for number in range(1, 5):
            rows = [payment(1, "30T12:00", float(number)), payment(number, "31T12:00", 1.0, None)]
            till.push(rows, key=f"k{number}", now=f"2026-01-31T12:00:0{number}Z")
        expected = [(11.0, 5, "web", 1.0), *[(1.0, 1, None, 1.0)] * 3]
        assert till.online(1, 2, 3, 4) == expected
        with locked_pushes(services.pushed):
            assert compact(catalog, services.pushed) == 4
        early = replace(till.store, now_us=parse_instant("2026-01-31T12:00:02Z"))
        early.etl()
        (run, _) = till.runs("spend")
        assert (run.rows, run.last_push) == (4, 2)
        assert till.online(1, 2, 3, 4) == expected
        till.store.etl()
        assert till.runs("newest")[0].rows == 8
        assert till.online(1, 2, 3, 4) == till.trained([1, 2, 3, 4]) == expected
    near.close()
    catalog.close()
