"""What stages that watch production make of nodes that do not take the candidate up."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from konveyer.bundle.manifest import ModelSpec
from konveyer.bundle.origin import BundleOrigin
from konveyer.bundle.release_policy import Canary, ReleasePolicy, Shadow
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.core.storage import FolderStorage, Listed, StorageUnavailable
from konveyer.execution.releases import flow, nodes, patient
from konveyer.execution.releases.gates import canary
from konveyer.execution.releases.gates.canary import canary_stage
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.listing import Gate
from konveyer.execution.releases.gates.shadow import shadow_gate
from konveyer.execution.releases.gates.watching import Refusals, stand_beside
from konveyer.execution.releases.live import retire_others
from konveyer.execution.releases.machine import State
from konveyer.execution.releases.records import begin_stage, load_release, release_row, set_live
from konveyer.execution.releases.rollback import roll_back
from konveyer.execution.releases.service import open_release
from konveyer.execution.releases.sides import Side
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.report import Refused, Report
from tests.manifests import manifest_with
from tests.unit.releases.test_conveyor import ANA, BORIS, gate_services
from tests.unit.releases.test_decisions import run_on
from tests.unit.releases.test_following import logged, prediction

STARTING = Refused(
    application="scoring", api_version=1, digest="sha256:bb", reason="its process has not started"
)
PREPARING = msgspec.structs.replace(STARTING, is_preparing=True)


def test_a_node_gets_a_while_to_take_a_candidate_up(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FolderStorage(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    refusals = Refusals(GateContext(services=services, release="rel"), "sha256:bb")
    url = "http://127.0.0.1:1"
    with announced(storage, "prod", url, lambda: Report(refused=(STARTING,))):
        assert refusals.look() == []
        monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.0)
        assert refusals.look() == [f"{url}: its process has not started"]
    with announced(storage, "prod", url, lambda: Report()):
        monkeypatch.undo()
        assert refusals.look() == []
    with announced(storage, "prod", url, lambda: Report(refused=(STARTING,))):
        assert refusals.look() == []


def test_a_node_that_is_preparing_gets_longer_and_not_for_ever(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.01)
    storage = FolderStorage(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    url = "http://127.0.0.1:1"
    refusals = Refusals(GateContext(services=services, release="rel"), "sha256:bb")
    with announced(storage, "prod", url, lambda: Report(refused=(PREPARING,))):
        for _ in range(3):
            assert refusals.look() == []
            time.sleep(0.05)
        monkeypatch.setattr(nodes, "PREPARE_WITHIN_S", 0.0)
        assert refusals.look() == [f"{url}: its process has not started"]


POLICY = ReleasePolicy(
    shadow=Shadow(rows=500), canary=Canary(weights=(0.5,), hold_s=0.0, rows=500, within_s=60.0)
)
SCORES = {"high": 0.7, "low": 0.2, "middle": 0.1}


def packed(bundles: BundleStore, outputs: Sequence[str], policy: ReleasePolicy = POLICY) -> Bundle:
    model = ModelSpec(outputs=tuple(ScalarColumn(name, ColumnType.FLOAT64) for name in outputs))
    return bundles.pack(manifest_with(model=model, release=policy), lambda _: None)


def released(catalog: Catalog, bundle: Bundle, state: State) -> str:
    with catalog.transaction() as session:
        release = open_release(session, ANA, bundle)
        row = release_row(session, release)
        row.state = str(state)
        if state is State.LIVE:
            set_live(session, "prod", row)
        else:
            begin_stage(session, release, state, waiting_us=0, by="")
    return release


@pytest.mark.parametrize(
    ("gate", "stage"), [(shadow_gate, State.SHADOW), (canary_stage, State.CANARY)]
)
@pytest.mark.parametrize(
    ("outputs", "high", "passes"),
    [
        (("extra", "high", "low", "middle"), 0.7, True),
        (("middle", "low", "high"), 0.7, True),
        (("extra", "high", "low", "middle"), 0.1, False),
    ],
)
def test_answers_are_compared_by_the_names_of_their_outputs(
    catalog: Catalog,
    tmp_path: Path,
    gate: Gate,
    stage: State,
    outputs: Sequence[str],
    high: float,
    passes: bool,
) -> None:
    storage = FolderStorage(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    live = packed(BundleStore(tmp_path), tuple(SCORES))
    served = released(catalog, live, State.LIVE)
    candidate = packed(BundleStore(tmp_path), outputs)
    release = released(catalog, candidate, stage)
    scores = {"extra": 0.0, **SCORES, "high": high}
    logged(
        tmp_path,
        *(
            prediction(
                number,
                now_us() + 10_000_000,
                bundle=bundle.digest,
                release=of,
                side=side,
                outputs=tuple(answer),
            )
            for number in range(600)
            for bundle, of, side, answer in (
                (live, served, "live", SCORES.values()),
                (candidate, release, str(stage), [scores[name] for name in outputs]),
            )
        ),
    )
    verdict = gate(GateContext(services=services, release=release), candidate)
    assert verdict.passed is passes, verdict.measured
    assert passes or "distribution of high: 1 against 0" in verdict.measured
    assert "distribution of low" not in verdict.measured


def test_an_entity_that_is_asked_again_and_again_condemns_no_canary(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Such as one that somebody asks for every second to see whether all is well."""
    storage = FolderStorage(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    live = candidate = packed(BundleStore(tmp_path), ("score", "rest"))
    served = released(catalog, live, State.LIVE)
    release = released(catalog, candidate, State.CANARY)
    sides = ((0, served, "live"), (1, release, "canary"))
    asked = [
        prediction(
            2 * number + odd,
            now_us() + 10_000_000,
            bundle=live.digest,
            release=of,
            side=side,
            outputs=(number / 600, 0.0),
        )
        for number in range(600)
        for odd, of, side in sides
    ]
    again = [replace(asked[0], request_id=f"again-{number}") for number in range(3000)]
    logged(tmp_path, *asked, *again)
    verdict = canary_stage(GateContext(services=services, release=release), candidate)
    assert verdict.passed, verdict.measured
    assert verdict.evidence["steps"][0]["live"]["rows"] == 3600


def test_callers_are_looked_after_again_before_a_canary_answers_more_of_them(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FolderStorage(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    policy = ReleasePolicy(canary=Canary(weights=(0.2, 0.5), hold_s=0.0, rows=1, within_s=60.0))
    released(catalog, packed(BundleStore(tmp_path), ("risk",)), State.LIVE)
    live = released(catalog, packed(BundleStore(tmp_path), ("score", "rest")), State.LIVE)
    candidate = packed(BundleStore(tmp_path), ("score", "rest", "extra"), policy)
    release = released(catalog, candidate, State.CANARY)
    with catalog.transaction() as session:
        retire_others(session, release_row(session, live), "conveyor")
        begin_stage(session, release, State.INTEGRATION, waiting_us=0, by="")
    answered = prediction(1, now_us() + 10_000_000, bundle=candidate.digest, release=release)
    logged(tmp_path, replace(answered, side="canary", outputs=(0.5, 0.5, 0.0)))

    def rolled_back_then(context: GateContext, side: Side, share: float) -> None:
        stand_beside(context, side, share)
        roll_back(catalog, BundleStore(tmp_path), storage, BORIS, live, reason="refuses all")

    monkeypatch.setattr(canary, "stand_beside", rolled_back_then)
    verdict = canary_stage(GateContext(services=services, release=release), candidate)
    assert not verdict.passed
    assert "the answer has 3 outputs instead of 1" in verdict.measured
    assert [step["weight"] for step in verdict.evidence["steps"]] == [0.2]


class Shaky(FolderStorage):
    """Storage of which, once it is shaky, every second request fails; or each, when it is down."""

    is_shaky = is_down = False
    asked = 0

    def _answer(self) -> None:
        self.asked += 1
        if self.is_down or (self.is_shaky and self.asked % 2):
            raise StorageUnavailable("slow down")

    def read(self, name: str) -> bytes:
        self._answer()
        return super().read(name)

    def write(self, name: str, content: bytes) -> None:
        self._answer()
        super().write(name, content)

    def download(self, name: str, path: Path) -> None:
        self._answer()
        super().download(name, path)

    def listed(self, folder: str) -> list[Listed]:
        self._answer()
        return super().listed(folder)


@pytest.mark.parametrize("stage", [State.SHADOW, State.CANARY, State.PRODUCTION])
def test_a_release_outlives_requests_to_storage_that_fail(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: State
) -> None:
    monkeypatch.setattr(patient, "LOOK_EVERY_S", 0.01)
    storage = Shaky(tmp_path)
    packing = BundleStore(tmp_path / "packed", BundleOrigin(storage))
    candidate = packed(packing, ("score", "rest"))
    served = released(catalog, packed(packing, ("score", "rest")), State.LIVE)
    release = released(catalog, candidate, stage)
    with catalog.transaction() as session:
        release_row(session, release).required = [str(stage)]
    logged(
        tmp_path,
        *(
            prediction(
                number,
                now_us() + 10_000_000,
                bundle=candidate.digest,
                release=of,
                side=side,
                outputs=(0.5, 0.5),
            )
            for number in range(600)
            for of, side in ((served, "live"), (release, str(stage)))
        ),
    )
    storage.is_shaky = True
    bundles = BundleStore(tmp_path / "fetched", BundleOrigin(storage))
    run_on(release, stage, catalog, storage, tmp_path, bundles)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert found.state == State.LIVE, found.reason
    assert storage.asked > 4


@pytest.mark.parametrize(
    ("stage", "end"), [(State.CANARY, State.ROLLED_BACK), (State.PRODUCTION, State.FAILED)]
)
def test_a_storage_that_does_not_come_back_fails_a_release_which_keeps_what_was_seen(
    catalog: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: State,
    end: State,
) -> None:
    monkeypatch.setattr(patient, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(flow, "_STORAGE_AWAY_S", 0.1)
    monkeypatch.setattr(flow, "_WATCHING_AWAY_S", 0.1)
    storage = Shaky(tmp_path)
    bundles = BundleStore(tmp_path)
    released(catalog, packed(bundles, ("score", "rest")), State.LIVE)
    release = released(catalog, packed(bundles, ("score", "rest")), stage)
    with catalog.transaction() as session:
        release_row(session, release).required = [str(stage)]
    storage.is_down = True
    run_on(release, stage, catalog, storage, tmp_path, bundles)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert (found.state, found.stages[-1].evidence["code"]) == (end, "storage_unavailable")
    assert "slow down" in (found.reason or "")
    steps = found.stages[-1].evidence.get("steps", [])
    assert [step["weight"] for step in steps] == ([0.5] if stage is State.CANARY else [])
