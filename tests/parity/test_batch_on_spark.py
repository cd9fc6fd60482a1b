"""Scores are the same on either engine, also as a source of features."""

from pathlib import Path
from typing import Any

import pytest

from konveyer import Aggregation, FeatureService, FeatureView, Source
from konveyer.feature_store.engines.spark import SparkEngine
from tests.unit.batch.scorer import DEFINITIONS, Scorer, opened_scorer

pytestmark = pytest.mark.spark
MOMENTS = ("2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z")


def scored(scorer: Scorer) -> list[dict[str, Any]]:
    scorer.release()
    scorer.run(scorer.plan(*MOMENTS))
    scorer.run(scorer.plan(*MOMENTS))
    return [row | {"release": ""} for row in scorer.rows()]


def test_spark_scores_the_same_rows_on_its_executors_and_reads_them(
    spark: SparkEngine, tmp_path: Path
) -> None:
    (tmp_path / "duckdb").mkdir()
    (tmp_path / "spark").mkdir()
    with opened_scorer(tmp_path / "duckdb") as scorer:
        expected = scored(scorer)
    with opened_scorer(tmp_path / "spark", spark) as scorer:
        assert scored(scorer) == expected
        assert len(expected) > 40
        path = str(scorer.table.relative_to(scorer.root))
        view = FeatureView(
            name="earlier",
            entity="client",
            source="scores",
            aggregations=(Aggregation(column="prediction", function="last", over="30d"),),
        )
        source = Source(name="scores", path=path, event_time="event_time")
        service = FeatureService(name="second", features=("earlier",))
        scorer.store.apply(*DEFINITIONS, source, view, service)
        scorer.store.etl("earlier")
        assert scorer.left() == []
