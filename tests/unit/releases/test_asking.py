"""Gates that ask a node which takes its time, or gives no answer at all."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from konveyer.bundle.manifest import ENTITIES, Entities, Isolated, ModelSpec, Serving
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.core.sockets import listening
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases.gates import context, coverage, functional, integration, replay
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.integration import Predictions
from konveyer.execution.releases.machine import State
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
from tests.manifests import manifest_with
from tests.unit.releases.test_beside import row
from tests.unit.releases.test_conveyor import gate_services
from tests.unit.releases.test_watching import released

FLOAT = ColumnType.FLOAT64
VIEW = ResolvedView(
    name="spend",
    version="1",
    keys=(ScalarColumn("client_id", ColumnType.INT64),),
    columns=(Column("total", FLOAT),),
    defaults=(None,),
    space="spend.1",
    ttl_us=None,
    windowed=True,
)
TOTAL = ResolvedFeature(name="total", view="spend", feature="total", dtype=FLOAT)
SERVICE = ResolvedService(name="scoring", version="1", views=(VIEW,), features=(TOTAL,))
ENTITY = Entities(keys=((7,),), requests=((),))
SILENT = "the node gave no answer (ReadTimeout: timed out)"
QUICK: dict[str, Any] = {
    "model": ModelSpec(isolated=Isolated(limit_ms=50)),
    "serving": Serving(deadline_ms=50),
}
OnTest = Callable[..., tuple[GateContext, Bundle]]


def packed(bundles: BundleStore, **changes: Any) -> Bundle:
    def fill(folder: Path) -> None:
        (folder / ENTITIES).write_bytes(msgspec.json.encode(ENTITY))

    return bundles.pack(manifest_with(service=SERVICE, **changes), fill)


@pytest.fixture
def on_test(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnTest]:
    """Makes a candidate, and its release, that a node of test serves which never answers."""
    services = gate_services(catalog, tmp_path, FolderStorage(tmp_path))
    with listening("127.0.0.1", 0) as node:
        url = f"http://127.0.0.1:{node.getsockname()[1]}"
        monkeypatch.setattr(context, "node_of", lambda *_: nullcontext(url))
        monkeypatch.setattr(context, "wait_until_serving", lambda *_: None)

        def made(**changes: Any) -> tuple[GateContext, Bundle]:
            bundle = packed(BundleStore(tmp_path), **changes)
            release = released(catalog, bundle, State.INTEGRATION)
            return GateContext(services=services, release=release), bundle

        yield made


@pytest.mark.parametrize(
    ("limit_ms", "deadline_ms", "within_s"), [(1000, 1000, 10), (30_000, 1500, 31.5)]
)
def test_a_model_is_waited_for_as_long_as_it_may_take(
    on_test: OnTest, limit_ms: float, deadline_ms: float, within_s: float
) -> None:
    model = ModelSpec(form="isolated", isolated=Isolated(limit_ms=limit_ms))
    gate, bundle = on_test(model=model, serving=Serving(deadline_ms=deadline_ms))
    with gate.on_test(bundle) as node, node.client() as client:
        assert client.timeout.read == within_s


def test_integration_notes_entities_that_a_node_gives_no_answer_for(
    on_test: OnTest, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(*_: object) -> list[tuple[float]]:
        return [(1.0,)]

    monkeypatch.setattr(context, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(integration, "ages", lambda *_: [])
    monkeypatch.setattr(integration, "offline_features", features)
    monkeypatch.setattr(coverage, "offline_features", features)
    monkeypatch.setattr(integration, "compared_predictions", lambda *_: Predictions())
    released(catalog, packed(BundleStore(tmp_path), owner="another"), State.LIVE)
    gate, bundle = on_test(**QUICK)
    verdict = integration.integration_gate(gate, bundle)
    assert not verdict.passed
    assert verdict.evidence["worst"] == [{"keys": (7,), "problem": SILENT}]
    assert f"(7,): {SILENT}" in verdict.measured
    assert verdict.evidence["lost"] == ()


def test_replay_notes_requests_that_a_node_gives_no_answer_to(
    on_test: OnTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, bundle = on_test(**QUICK)
    recorded = [row(n, bundle=bundle.digest, outputs=[0.5]) for n in range(4)]
    then = SimpleNamespace(rows=[(1.0,)] * 4, retrieved=())
    monkeypatch.setattr(context, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(replay, "answered_rows", lambda *_: recorded)
    monkeypatch.setattr(replay, "features_then", lambda *_: then)
    monkeypatch.setattr(replay, "answering", lambda *_: nullcontext(list))
    verdict = replay.replay_gate(gate, bundle)
    assert not verdict.passed
    later = "the node gave no answer (ReadTimeout: not asked, for 3 before had none)"
    assert verdict.evidence["not_answered"] == [SILENT, SILENT, SILENT, later]


def test_what_a_node_answers_too_late_is_no_answer(
    on_test: OnTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = {"keys": [7], "features": [1.0], "outputs": [0.5], "error": None}
    monkeypatch.setattr(context, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(integration, "ages", lambda *_: [])
    monkeypatch.setattr(integration, "offline_features", lambda *_: [(1.0,)])
    monkeypatch.setattr(integration, "compared_predictions", lambda *_: Predictions())
    monkeypatch.setattr(integration, "read_predictions", lambda *_, **__: [logged])
    gate, bundle = on_test(**QUICK)
    verdict = integration.integration_gate(gate, bundle)
    assert not verdict.passed
    assert verdict.evidence["worst"] == [{"keys": (7,), "problem": SILENT}]


def test_functional_notes_malformed_requests_that_a_node_gives_no_answer_to(
    on_test: OnTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "ANSWER_WITHIN_S", 0.1)
    gate, bundle = on_test(**QUICK)
    with gate.on_test(bundle) as node:
        answers = functional._malformed_answers(node, bundle)
    assert answers[0]["got"] == SILENT
    assert {answer["status"] for answer in answers} == {None}
