"""Batches of a model that runs in a process of its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import Feature, FeatureService, FeatureView, Source
from konveyer.core.clock import parse_instant
from konveyer.execution.releases.records import release_row, set_live
from konveyer.execution.releases.service import open_release
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from tests.unit.batch.scorer import CLIENT, NOW, Scorer, opened_scorer
from tests.unit.bundle.workbench import NAMES, NUMBERS, trained
from tests.unit.serving.isolation import FAULTY, packed

CLIENTS = 700
FACTS = Source(name="facts_table", path="facts.parquet", event_time="at")
VIEW = FeatureView(
    name="facts",
    entity="client",
    sql=f'SELECT client_id, "at" AS event_time, {", ".join(NAMES)} FROM facts_table',
    features=tuple(
        Feature(name=name, dtype="float64" if name in NUMBERS else "string") for name in NAMES
    ),
)
SERVICE = FeatureService(name="scoring", features=("facts",))


@pytest.fixture
def scorer(tmp_path: Path, zoo: Path) -> Iterator[Scorer]:
    """With a live model that doubles the first feature, fails at 101 and gives NaN at 108; of the
    last client a feature is infinite, of which it makes 1.
    """
    at = pa.array(np.full(CLIENTS, parse_instant("2026-01-01T00:00:00Z")))
    columns = {"client_id": np.arange(CLIENTS), "at": at.cast(pa.timestamp("us", "UTC"))}
    facts = {name: np.zeros(CLIENTS) for name in NUMBERS} | {
        "n0": np.array([float(client % 109) for client in range(CLIENTS)])
    }
    facts["n0"][(facts["n0"] > 101) & (facts["n0"] < 108)] = 1.0
    facts["n1"][-1] = np.inf
    texts = {name: ["x"] * CLIENTS for name in NAMES if name not in NUMBERS}
    pq.write_table(pa.table({**columns, **facts, **texts}), tmp_path / "facts.parquet")
    with opened_scorer(tmp_path) as opened:
        services = replace(opened.services, environments=zoo.parents[2])
        scorer = Scorer(opened.store, services)
        scorer.store.apply(CLIENT, FACTS, VIEW, SERVICE)
        scorer.store.etl()
        run = trained(tmp_path / "run", zoo, FAULTY, given="codes")
        with services.catalog.transaction() as session:
            service = resolve_service(session, active_state(session), "scoring")
            bundle = packed(run, services.bundles, application="scoring", service=service)
            release = open_release(session, scorer.store.admin, bundle)
            row = release_row(session, release)
            row.state = "live"
            set_live(session, "prod", row)
        yield scorer


def test_each_row_gets_the_answer_of_the_models_own_process(scorer: Scorer) -> None:
    (period,) = scorer.run(scorer.plan(NOW))
    assert (period.status, period.rows) == ("succeeded", CLIENTS)
    said = {row["client_id"]: row["prediction"] for row in scorer.rows()}
    assert len(said) == CLIENTS
    unanswered = {client for client, score in said.items() if score is None}
    assert unanswered == {c for c in range(CLIENTS) if c % 109 in (101, 108)}
    assert (said[5], said[50], said[105], said[110]) == (10.0, 100.0, 2.0, 2.0)
    assert said[CLIENTS - 1] == 1.0
