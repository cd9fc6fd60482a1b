"""The release conveyor's states, its people, and the judgements of its gates."""

import math
from pathlib import Path

import pytest

from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.bundle.manifest import Manifest, Objective
from konveyer.bundle.store import Bundle
from konveyer.catalog.session import Catalog
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases import nodes
from konveyer.execution.releases.gates import functional, integration, load
from konveyer.execution.releases.gates.context import GateContext, GateServices
from konveyer.execution.releases.gates.integration import Served
from konveyer.execution.releases.gates.invariants import Held
from konveyer.execution.releases.gates.load import LoadProfile
from konveyer.execution.releases.gates.production import production_stage
from konveyer.execution.releases.lead_time import lead_time
from konveyer.execution.releases.live import take_back
from konveyer.execution.releases.machine import (
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
)
from konveyer.execution.serving.desired import read_desired
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.report import Report
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.duckdb import DuckDBEngine
from konveyer.feature_store.offline.delta import DeltaOfflineStore

ANA = Actor("ana", frozenset({Role.DATA_SCIENTIST, Role.ML_ENGINEER}))
BORIS = Actor("boris", frozenset({Role.ML_ENGINEER}))
EVA = Actor("eva", frozenset({Role.ANALYST}))


def bundle(digest: str = "sha256:aa", api_version: int = 1) -> Bundle:
    manifest = Manifest(
        application="scoring",
        api_version=api_version,
        description="",
        owner="",
        author="ana",
        created_us=0,
        run_id="run",
        service=ResolvedService(name="s", version="v", views=(), features=()),
        categories={},
        objective=Objective(rate_per_s=100, p99_ms=50),
        parameters={},
        metrics={},
        files={},
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
    with pytest.raises(WrongState, match="possible now: pass, fail"):
        next_state("r", State.LOAD, Action.APPROVE)


def test_what_failed_by_itself_can_be_waived_and_nothing_else() -> None:
    waived = {stage for stage, action in NEXT if action is Action.WAIVE}
    gates = {State.CHECKS, State.FUNCTIONAL, State.INTEGRATION, State.LOAD}
    assert waived == gates | {State.REPLAY, State.SHADOW}
    for stage in waived:
        assert NEXT[stage, Action.FAIL] is State.FAILED
        assert NEXT[stage, Action.WAIVE] is NEXT[stage, Action.PASS]


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
    assert lead_time(found).waited_s == review.waited_s >= 0


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


def test_production_goes_back_when_a_node_does_not_take_the_release_up(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.3)
    services = GateServices(
        catalog=catalog,
        engine=DuckDBEngine(),
        offline=DeltaOfflineStore(tmp_path),
        storage=FolderStorage(tmp_path),
        state=tmp_path,
        environments=tmp_path,
        node_command=lambda _: (),
        load_seconds=1,
    )

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
            second = opened(catalog, State.FAILED, digest="sha256:bb")
            context = GateContext(services=services, release=second)
            with pytest.raises(NodeMissing):
                production_stage(context, bundle("sha256:bb"))
            assert served() == ["sha256:aa"]
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
    verdict = load.judge(seen, Objective(rate_per_s=100, p99_ms=50))
    assert verdict.passed is passes
    assert verdict.evidence["p99_ms"] == seen.p99_ms


def test_one_differing_feature_fails_integration_and_is_shown() -> None:
    same = Served(keys=(1,), features=(1.0, None))
    assert integration.judge([same], [(1.0, None)], ["a", "b"]).passed
    other = Served(keys=(2,), features=(1.0, 2.0))
    verdict = integration.judge([same, other], [(1.0, None), (1.0, None)], ["a", "b"])
    assert not verdict.passed
    (worst,) = verdict.evidence["worst"]
    assert worst == {"keys": (2,), "features": {"b": {"online": 2.0, "offline": None}}}


def test_an_entity_without_an_answer_fails_integration() -> None:
    missing = Served(keys=(1,), features=None, problem="404")
    assert not integration.judge([missing], [(1.0,)], ["a"]).passed
    assert not integration.judge([], [], ["a"]).passed


@pytest.mark.parametrize(
    ("difference", "got", "passes"),
    [(0.0, "missing_key", True), (1e-8, "missing_key", False), (0.0, "status 500", False)],
)
def test_functional_wants_the_same_answers_and_the_right_refusals(
    difference: float, got: str, passes: bool
) -> None:
    answer = {"request": "no key", "expected": "missing_key", "got": got, "status": 422}
    assert functional.judge([0.0, difference], [answer]).passed is passes


def test_functional_keeps_to_the_declared_tolerance_and_invariants() -> None:
    assert functional.judge([1e-6], [], tolerance=1e-5).passed
    broken = Held(invariant="increasing in age", answers=10, broken=1, worst={})
    verdict = functional.judge([0.0], [], [broken])
    assert not verdict.passed
    assert "0 of 1 invariants hold (broken: increasing in age)" in verdict.measured
    assert not functional.judge([math.inf], []).passed
    assert not functional.judge([], []).passed
