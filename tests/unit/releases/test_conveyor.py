"""The release conveyor's states, its people, and the judgements of its gates."""

import math
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.bundle.manifest import GoldenCase, Objective
from konveyer.bundle.parity import Parity, parity
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog.session import Catalog
from konveyer.core.clock import FeatureClock
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import Column, ColumnType, ScalarColumn
from konveyer.core.storage import FolderStorage, StorageUnavailable
from konveyer.execution.releases import nodes
from konveyer.execution.releases.freshness import age_of
from konveyer.execution.releases.gates import functional, integration, load
from konveyer.execution.releases.gates.context import GateContext, GateServices
from konveyer.execution.releases.gates.coverage import Coverage
from konveyer.execution.releases.gates.integration import Predictions, Served
from konveyer.execution.releases.gates.invariants import Held
from konveyer.execution.releases.gates.listing import GATES
from konveyer.execution.releases.gates.load import LoadProfile
from konveyer.execution.releases.gates.production import production_stage
from konveyer.execution.releases.lead_time import lead_time
from konveyer.execution.releases.live import repair_desired, take_back
from konveyer.execution.releases.machine import (
    AUTOMATIC,
    HUMAN,
    NEXT,
    OPTIONAL,
    STAGES,
    Action,
    State,
    WrongState,
    next_state,
)
from konveyer.execution.releases.nodes import NodeMissing
from konveyer.execution.releases.records import (
    begin_stage,
    desired_of,
    list_releases,
    live_versions,
    load_release,
    release_row,
    set_live,
)
from konveyer.execution.releases.service import (
    OwnRelease,
    ReasonMissing,
    ReleaseInFlight,
    approve,
    open_release,
    reject,
    withdraw,
)
from konveyer.execution.releases.transitions import move
from konveyer.execution.releases.usage import Usage, measured
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.contract import RequestContract
from konveyer.execution.serving.desired import desired_name, read_desired
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.report import Report
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedOnDemand,
    ResolvedService,
    ResolvedView,
)
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from tests.manifests import manifest_with

ANA = Actor("ana", frozenset({Role.DATA_SCIENTIST, Role.ML_ENGINEER}))
BORIS = Actor("boris", frozenset({Role.ML_ENGINEER}))
EVA = Actor("eva", frozenset({Role.ANALYST}))


def bundle(digest: str = "sha256:aa", api_version: int = 1) -> Bundle:
    manifest = manifest_with(
        api_version=api_version,
        objective=Objective(rate_per_s=100, p99_ms=50),
    )
    return Bundle(digest=digest, path=Path(), manifest=manifest)


def opened(catalog: Catalog, state: State = State.REVIEW, **changes: object) -> str:
    with catalog.transaction() as session:
        release = open_release(session, ANA, bundle(**changes))  # type: ignore[arg-type]
        release_row(session, release).state = str(state)
    return release


def test_every_stage_leads_to_the_next_and_to_an_end() -> None:
    for stage, following in zip(STAGES, (*STAGES[1:], State.LIVE), strict=True):
        onward = Action.APPROVE if stage in HUMAN else Action.PASS
        assert NEXT[stage, onward] is following
        if stage in OPTIONAL:
            assert NEXT[stage, Action.SKIP] is following
        if stage is not State.PRODUCTION:
            assert NEXT[stage, Action.WITHDRAW] is State.WITHDRAWN


@pytest.mark.parametrize(
    ("state", "possible"),
    [
        (State.LOAD, "withdraw"),
        (State.REPLAY, "withdraw"),
        (State.APPROVAL, "approve, reject, withdraw"),
        (State.CANARY, "promote, roll back, withdraw"),
        (State.PRODUCTION, "roll back"),
        (State.RETIRED, "nothing"),
    ],
)
def test_what_a_person_can_do_with_a_release_is_said(state: State, possible: str) -> None:
    with pytest.raises(WrongState) as caught:
        next_state("r", state, Action.RETIRE)
    assert caught.value.hint == f"possible now: {possible}"


def test_a_stage_that_was_under_way_ends_with_its_release(catalog: Catalog) -> None:
    release = opened(catalog, State.CANARY)
    with catalog.transaction() as session:
        begin_stage(session, release, State.CANARY, waiting_us=0, by="")
        withdraw(session, ANA, release)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert found.ended_us is not None
    assert found.stages[-1].waited_s == found.ended_us / 1e6


def test_every_automatic_stage_has_a_gate() -> None:
    assert set(GATES) == set(AUTOMATIC)


def test_what_failed_by_itself_can_be_waived_and_nothing_else() -> None:
    waived = {stage for stage, action in NEXT if action is Action.WAIVE}
    gates = {State.CHECKS, State.FUNCTIONAL, State.INTEGRATION, State.LOAD}
    assert waived == gates | {State.REPLAY, State.SHADOW}
    for stage in waived:
        assert NEXT[stage, Action.FAIL] is State.FAILED
        assert NEXT[stage, Action.WAIVE] is NEXT[stage, Action.PASS]
        assert NEXT[stage, Action.RERUN] is stage


def test_a_second_person_takes_it_past_review(catalog: Catalog) -> None:
    release = opened(catalog)
    with catalog.transaction() as session, pytest.raises(OwnRelease):
        approve(session, ANA, release)
    with catalog.transaction() as session, pytest.raises(NotAllowed):
        approve(session, EVA, release)
    for _ in range(2):  # a repeated yes is harmless
        with catalog.transaction() as session:
            approve(session, BORIS, release, comment="fine")
    with catalog.transaction() as session:
        found = load_release(session, release)
    assert found.state == State.FUNCTIONAL
    (review,) = found.stages
    assert (review.verdict, review.by, review.evidence["comment"]) == ("passed", "boris", "fine")
    assert review.worked_s == 0
    assert found.waiting_s > 0, "for its turn in the functional gate"
    assert lead_time(found).waited_s == review.waited_s + found.waiting_s


def test_a_rejection_needs_a_reason_and_ends_the_release(catalog: Catalog) -> None:
    release = opened(catalog)
    with catalog.transaction() as session, pytest.raises(ReasonMissing):
        reject(session, BORIS, release, reason=" ")
    with catalog.transaction() as session:
        reject(session, BORIS, release, reason="leaks the label")
    with catalog.transaction() as session:
        found = load_release(session, release)
        assert found.state == State.REJECTED
        assert found.reason == "rejected by boris: leaks the label"
        with pytest.raises(WrongState):
            approve(session, BORIS, release)


def test_one_release_of_a_version_is_on_its_way_at_a_time(catalog: Catalog) -> None:
    first = opened(catalog)
    with catalog.transaction() as session, pytest.raises(ReleaseInFlight, match=first):
        open_release(session, ANA, bundle("sha256:bb"))
    opened(catalog, api_version=2)
    with catalog.transaction() as session:
        release_row(session, first).state = str(State.FAILED)
    opened(catalog, digest="sha256:bb")
    with catalog.transaction() as session:
        assert len(list_releases(session, application="scoring")) == 3


def test_an_environment_serves_the_newest_release_of_each_version(catalog: Catalog) -> None:
    first = opened(catalog, State.LIVE)
    second = opened(catalog, State.LIVE, digest="sha256:bb")
    with catalog.transaction() as session:
        assert set_live(session, "prod", release_row(session, first))
        assert set_live(session, "prod", release_row(session, second))
        assert not set_live(session, "prod", release_row(session, second))
        assert [live.digest for live in live_versions(session)] == ["sha256:bb"]
        assert [one.release for one in desired_of(session, "prod").versions] == [second]
        assert desired_of(session, "test").versions == ()


def gate_services(catalog: Catalog, folder: Path, storage: FolderStorage) -> GateServices:
    return GateServices(
        catalog=catalog,
        bundles=BundleStore(folder),
        clock=FeatureClock(),
        engine=DuckDBEngine(),
        offline=DeltaOfflineStore(folder),
        storage=storage,
        state=folder,
        environments=folder,
        node_command=lambda _: (),
        load_seconds=1,
    )


class Down(FolderStorage):
    """Storage that takes nothing while it is down."""

    is_down = False

    def write(self, name: str, content: bytes) -> None:
        if self.is_down:
            raise StorageUnavailable("it is down")
        super().write(name, content)


def test_production_is_what_it_was_when_nodes_cannot_be_told(
    catalog: Catalog, tmp_path: Path
) -> None:
    storage = Down(tmp_path)
    services = gate_services(catalog, tmp_path, storage)
    first = opened(catalog, State.LIVE)
    production_stage(GateContext(services=services, release=first), bundle())
    second = opened(catalog, State.PRODUCTION, digest="sha256:bb")
    storage.is_down = True
    with pytest.raises(StorageUnavailable):
        production_stage(GateContext(services=services, release=second), bundle("sha256:bb"))
    storage.is_down = False
    with catalog.reading() as session:
        assert [live.digest for live in live_versions(session, "prod")] == ["sha256:aa"]
    assert [one.digest for one in read_desired(storage, "prod").versions] == ["sha256:aa"]
    repair_desired(catalog, storage, "prod")
    assert not repair_desired(catalog, storage, "prod")


@pytest.mark.parametrize("lost", ["stale", "gone", "unreadable"])
def test_a_document_that_is_not_what_the_catalog_says_is_written_again(
    catalog: Catalog, tmp_path: Path, lost: str
) -> None:
    storage = Down(tmp_path)
    with catalog.transaction() as session:
        desired = desired_of(session, "prod")
    assert repair_desired(catalog, storage, "prod")
    assert not repair_desired(catalog, storage, "prod")
    release = opened(catalog, State.LIVE)
    match lost:
        case "stale":
            with catalog.transaction() as session:
                set_live(session, "prod", release_row(session, release))
        case "gone":
            storage.remove(desired_name("prod"))
        case "unreadable":
            storage.write(desired_name("prod"), b"{")
    assert repair_desired(catalog, storage, "prod")
    with catalog.reading() as session:
        assert read_desired(storage, "prod") == desired_of(session, "prod")
        assert (desired_of(session, "prod") == desired) is (lost != "stale")


def test_production_goes_back_when_a_node_does_not_take_the_release_up(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.3)
    services = gate_services(catalog, tmp_path, FolderStorage(tmp_path))

    def served() -> list[str]:
        with catalog.reading() as session:
            assert read_desired(FolderStorage(tmp_path), "prod") == desired_of(session, "prod")
            return [live.digest for live in live_versions(session, "prod")]

    first = opened(catalog, State.LIVE)
    context = GateContext(services=services, release=first)
    assert production_stage(context, bundle()).passed
    storage = FolderStorage(tmp_path)
    # Up, and it never takes anything up.
    with announced(storage, "prod", "http://127.0.0.1:1", lambda: Report()):
        for _ in range(2):
            second = opened(catalog, State.PRODUCTION, digest="sha256:bb")
            context = GateContext(services=services, release=second)
            with pytest.raises(NodeMissing):
                production_stage(context, bundle("sha256:bb"))
            assert served() == ["sha256:aa"]
            with catalog.transaction() as session:
                move(session, release_row(session, second), Action.FAIL, "conveyor")
    take_back(catalog, storage, release=first, environment="prod")
    assert served() == []


def profile(**changes: float) -> LoadProfile:
    values = {"p50_ms": 1.0, "p90_ms": 2.0, "p95_ms": 3.0, "p99_ms": 50.0, "max_ms": 90.0}
    return LoadProfile(
        **{"requests": 1000, "failures": 0, "rate_per_s": 99.0, **values, **changes}  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("seen", "passes"),
    [
        (profile(), True),
        (profile(p99_ms=50.1), False),
        (profile(rate_per_s=89.0), False),
        (profile(failures=1), False),
    ],
)
def test_load_is_held_to_the_objective(seen: LoadProfile, passes: bool) -> None:
    usage = Usage(cores=0.4, rss_mb=180.0, processes=2)
    verdict = load.judge(seen, Objective(rate_per_s=100, p99_ms=50), usage)
    assert verdict.passed is passes
    assert verdict.evidence["p99_ms"] == seen.p99_ms
    assert (verdict.evidence["node_cores"], verdict.evidence["node_rss_mb"]) == (0.4, 180.0)


def test_processor_and_memory_of_a_family_of_processes_are_measured() -> None:
    busy = "import time; end = time.time() + 20\nwhile time.time() < end: sum(range(1000))"
    shell = ["sh", "-c", f'"{sys.executable}" -c "{busy}"; true']
    with subprocess.Popen(shell, start_new_session=True) as process:
        try:
            with measured(process.pid) as usage:
                time.sleep(1.5)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert usage.cores is not None
    assert 0.05 < usage.cores <= 1.5
    assert usage.rss_mb is not None
    assert usage.rss_mb > 5
    assert usage.processes == 2
    with measured(None) as unknown:
        pass
    assert unknown.cores is None


def test_one_differing_feature_fails_integration_and_is_shown() -> None:
    same = Served(keys=(1,), features=(1.0, None))
    assert integration.judge([same], [(1.0, None)], ["a", "b"]).passed
    other = Served(keys=(2,), features=(1.0, 2.0))
    verdict = integration.judge([same, other], [(1.0, None), (1.0, None)], ["a", "b"])
    assert not verdict.passed
    (worst,) = verdict.evidence["worst"]
    assert worst == {"keys": (2,), "features": {"b": {"online": 2.0, "offline": None}}}


def test_the_entity_that_differs_most_comes_first() -> None:
    served = [Served(keys=(n,), features=(1.0, float(n > 2), float(n > 1))) for n in range(1, 4)]
    verdict = integration.judge(served, [(1.0, 0.0, 0.0)] * 3, ["a", "b", "c"])
    assert [row["keys"] for row in verdict.evidence["worst"]] == [(3,), (2,)]


def test_integration_asks_for_callers_freshness_and_the_same_answers() -> None:
    fine = Served(keys=(1,), features=(1.0,))
    hour = timedelta(hours=1)
    view = ResolvedView(
        name="spend",
        version="1",
        keys=(),
        columns=(),
        defaults=(),
        space="",
        ttl_us=None,
        windowed=True,
    )

    def judged(**more: Any) -> Verdict:
        return integration.judge([fine], [(1.0,)], ["a"], **more)

    fresh = age_of(view, 0, 7_200_000_000, hour)
    assert judged(published=[fresh]).passed
    stale = judged(published=[age_of(view, 0, 7_200_000_001, hour)])
    assert not stale.passed
    assert "'spend' is 2:00:00 old, more than twice its refresh (1:00:00)" in stale.measured
    short = msgspec.structs.replace(view, ttl_us=60_000_000)
    assert age_of(short, 0, 61_000_000, hour).is_stale
    broken = judged(breaking=["output 'prediction' is gone"])
    assert not broken.passed
    assert "output 'prediction' is gone: raise api_version" in broken.measured
    assert judged(known=Coverage(asked=2, lost=())).passed
    fewer = judged(known=Coverage(asked=2, lost=((7,),)))
    assert not fewer.passed
    assert "knows 1 of 2 entities that production knows" in fewer.measured
    assert fewer.evidence["lost"] == ((7,),)
    off = Predictions(compared=1, worst_difference=1e-3)
    assert not judged(predictions=off, tolerance=1e-4).passed
    assert judged(predictions=off, tolerance=1e-2).passed


def test_an_entity_without_an_answer_fails_integration() -> None:
    missing = Served(keys=(1,), features=None, problem="404")
    assert not integration.judge([missing], [(1.0,)], ["a"]).passed
    assert not integration.judge([], [], ["a"]).passed


@pytest.mark.parametrize(
    ("difference", "got", "passes"),
    [(0.0, "missing_key", True), (1e-5, "missing_key", False), (0.0, "status 500", False)],
)
def test_functional_wants_the_same_answers_and_the_right_refusals(
    difference: float, got: str, passes: bool
) -> None:
    answer = {"request": "no key", "expected": "missing_key", "got": got, "status": 422}
    golden = Parity(differences=[0.0, difference], unlike=[])
    assert functional.judge(golden, [answer]).passed is passes


def test_functional_shows_the_worst_cases_and_wrong_refusals_first() -> None:
    cases = [GoldenCase(features=[n], outputs=[float(n)]) for n in range(4)]
    found = parity(lambda rows: [(1.0 if n == 3 else float(n),) for (n,) in rows], cases)
    right = {"request": "no key", "expected": "missing_key", "got": "missing_key", "status": 422}
    wrong = {**right, "request": "a list", "got": "status 500"}
    evidence = functional.judge(found, [right, wrong]).evidence
    assert evidence["worst_cases"] == [
        {"features": [3], "wanted": [3.0], "got": [1.0], "difference": 2 / 3}
    ]
    assert evidence["malformed_requests"] == [wrong, right]


def read(service: ResolvedService, body: bytes) -> None:
    contract = RequestContract(service)
    rows, is_single = contract.shape(body)
    contract.read(rows, is_single=is_single)


@pytest.mark.parametrize(("key", "field"), [("id", "amount"), ("rows", "amount"), ("id", "rows")])
def test_malformed_requests_are_refused_as_functional_wants_whatever_inputs_are_called(
    key: str, field: str
) -> None:
    view = ResolvedView(
        name="v",
        version="1",
        keys=(ScalarColumn(key, ColumnType.INT64),),
        columns=(Column("spend", ColumnType.FLOAT64),),
        defaults=(None,),
        space="v.1",
        ttl_us=None,
        windowed=False,
    )
    given = ResolvedOnDemand(
        name="d",
        version="1",
        code="",
        request=(ScalarColumn(field, ColumnType.FLOAT64),),
        inputs=(),
        outputs=(),
    )
    feature = ResolvedFeature(name="spend", view="v", feature="spend", dtype=ColumnType.FLOAT64)
    service = ResolvedService(
        name="s", version="1", views=(view,), features=(feature,), on_demand=(given,)
    )
    for what, body, code in functional.malformed_requests(service):
        if code in ("entity_not_found", "body_too_large"):
            continue
        with pytest.raises(KonveyerError) as caught:
            read(service, body)
        assert code in (caught.value.code, functional.ANY), what


PAYMENT = ResolvedOnDemand(
    name="d",
    version="1",
    code="",
    request=(ScalarColumn("is_card", ColumnType.BOOL), ScalarColumn("at", ColumnType.TIMESTAMP)),
    inputs=(),
    outputs=(),
)


def test_malformed_requests_are_made_for_a_model_of_request_fields_alone() -> None:
    """It has no keys: nobody is unknown to it."""
    service = ResolvedService(name="s", version="1", views=(), features=(), on_demand=(PAYMENT,))
    asked = [*functional.malformed_requests(service), *functional.malformed_inference(service)]
    assert {"no is_card", "wrong at", "nothing", "too many rows"} <= {what for what, *_ in asked}
    for what, body, code in functional.malformed_requests(service):
        if code == "body_too_large":
            continue
        with pytest.raises(KonveyerError) as caught:
            read(service, body)
        assert code in (caught.value.code, functional.ANY), what


def test_functional_keeps_to_the_declared_tolerance_and_invariants() -> None:
    one = Parity(differences=[5e-6], unlike=[])
    assert functional.judge(one, [], tolerance=1e-5).passed
    broken = Held(invariant="increasing in age", answers=10, broken=1, worst={})
    verdict = functional.judge(Parity(differences=[0.0], unlike=[]), [], [broken])
    assert not verdict.passed
    assert "0 of 1 invariants hold (broken: increasing in age)" in verdict.measured
    assert not functional.judge(Parity(differences=[math.inf], unlike=[]), []).passed
    assert not functional.judge(Parity(differences=[], unlike=[]), []).passed


def test_functional_wants_refusals_where_the_model_refused() -> None:
    golden = Parity(differences=[0.0], unlike=["the model refuses [1], this one answers"])
    verdict = functional.judge(golden, [])
    assert not verdict.passed
    assert "refuses" in verdict.measured
