"""What people may do with a release, and what is recorded of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from konveyer.access.actor import Actor, NotAllowed
from konveyer.access.roles import Role
from konveyer.bundle.errors import BundleNotFound
from konveyer.bundle.manifest import ModelSpec
from konveyer.bundle.release_policy import Canary, ReleasePolicy
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog import audit, outages
from konveyer.catalog.session import Catalog
from konveyer.core.clock import now_us
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.core.settings import ReleasesSettings
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases.flow import ReleaseServices, goes_on, release_flow, run_from
from konveyer.execution.releases.gates import production
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.listing import GATES
from konveyer.execution.releases.lead_time import lead_time
from konveyer.execution.releases.live import publish_end, put_live, retire_others
from konveyer.execution.releases.machine import NEXT, REVIVING, Action, State, WrongState
from konveyer.execution.releases.records import (
    begin_stage,
    desired_of,
    load_release,
    release_row,
    set_live,
    stage_row,
)
from konveyer.execution.releases.required import required_stages
from konveyer.execution.releases.rollback import (
    NothingToRollBackTo,
    NotServed,
    plan_rollback,
    roll_back,
)
from konveyer.execution.releases.service import (
    NotAuthor,
    Outdated,
    OwnRelease,
    ReasonMissing,
    ReleaseInFlight,
    SamePerson,
    approve,
    open_release,
    promote,
    reject,
    rerun,
    waive,
    withdraw,
)
from konveyer.execution.releases.sides import Side, put_side
from konveyer.execution.releases.transitions import move
from konveyer.execution.releases.verdict import Verdict
from konveyer.execution.serving.desired import Share, read_desired
from konveyer.execution.serving.presence import Presence
from tests.outages import SealedSteps, failing
from tests.unit.releases.test_conveyor import ANA, BORIS, EVA, bundle, gate_services, opened

QUINN = Actor("quinn", frozenset({Role.QA}))
EVERYTHING = frozenset(Role)


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def failed_in(catalog: Catalog, stage: State) -> str:
    release = opened(catalog, stage)
    with catalog.transaction() as session:
        begin_stage(session, release, stage, waiting_us=0, by="conveyor")
        record = stage_row(session, release, stage)
        record.verdict, record.finished_us, record.evidence = "failed", 1, {"p99_ms": 80}
        move(session, release_row(session, release), Action.FAIL, "conveyor")
    return release


def test_a_failed_gate_is_waived_with_a_reason_and_stays_on_record(catalog: Catalog) -> None:
    release = failed_in(catalog, State.LOAD)
    with catalog.transaction() as session, pytest.raises(ReasonMissing):
        waive(session, QUINN, release, reason=" ")
    with catalog.transaction() as session:
        waive(session, QUINN, release, reason="a busy host")
    with catalog.reading() as session:
        found = load_release(session, release)
        (entry, *_) = audit.entries(session, kind="release", subject=release)
    assert found.state == State.REPLAY
    assert (found.ended_us, found.reason) == (None, None)
    (load,) = found.stages
    assert load.verdict == "waived"
    waived = {"by": "quinn", "reason": "a busy host"}
    assert load.evidence == {"p99_ms": 80, "waived": waived}
    assert (entry.actor, entry.action) == ("quinn", "waived")
    assert entry.detail == {"stage": "load", "state": "replay", "reason": "a busy host"}
    assert goes_on(found)


def test_no_time_of_a_release_is_lost_where_stages_are_passed_over(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path
) -> None:
    release = failed_in(catalog, State.LOAD)
    with catalog.transaction() as session:
        row = release_row(session, release)
        row.opened_us = stage_row(session, release, State.LOAD).waiting_us = (
            now_us() - 3_600_000_000
        )
        load = stage_row(session, release, State.LOAD)
        load.started_us = load.finished_us = row.opened_us + 60_000_000
        waive(session, QUINN, release, reason="a busy host")
    run_on(release, State.REPLAY, catalog, storage, tmp_path)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert (found.state, found.ended_us is not None) == (State.LIVE, True)
    took = {stage.stage: round(stage.waited_s) for stage in found.stages}
    assert took == {
        "load": 60,
        **dict.fromkeys(["replay", "shadow", "approval", "canary"], 0),
        "production": 3540,
    }
    with catalog.reading() as session:
        said = audit.entries(session, kind="release", subject=release)
    gates_said = {entry.actor for entry in said if entry.action in ("passed", "skipped")}
    assert gates_said == {"conveyor"}
    whole_s = ((found.ended_us or 0) - found.opened_us) / 1e6
    assert lead_time(found).total_s == pytest.approx(whole_s, abs=0.5)


def test_every_move_of_the_table_is_in_the_audit_log_with_who_made_it(catalog: Catalog) -> None:
    """Of one release, which is put where each move begins."""
    release, moved = opened(catalog), []
    for (start, action), following in NEXT.items():
        with catalog.transaction() as session:
            row = release_row(session, release)
            row.state = str(start)
            if action in REVIVING:
                row.state = str(State.FAILED)
                begin_stage(session, release, start, waiting_us=0, by="")
                record = stage_row(session, release, start)
                record.verdict, record.finished_us = "failed", now_us()
            move(session, row, action, f"who asks to {action}")
        moved.append((f"who asks to {action}", {"stage": start, "state": following}))
    with catalog.reading() as session:
        said = audit.entries(session, kind="release", subject=release, limit=len(NEXT))
    assert [(entry.actor, entry.detail) for entry in reversed(said)] == moved
    assert len({entry.action for entry in said}) == len(Action)


def test_a_failed_gate_looks_again(catalog: Catalog) -> None:
    release = failed_in(catalog, State.LOAD)
    with catalog.transaction() as session, pytest.raises(NotAllowed):
        rerun(session, EVA, release)
    with catalog.transaction() as session:
        rerun(session, ANA, release)
        found = load_release(session, release)
        (entry, *_) = audit.entries(session, kind="release", subject=release)
    assert (found.state, found.stages, found.attempt) == (State.LOAD, [], 2)
    assert (entry.action, entry.detail["stage"]) == ("reran", "load")
    runs = [run_from("load", release, attempt) for attempt in (1, 2)]
    assert [run.id for run in runs if run] == [f"{release}-load", f"{release}-load-2"]
    with catalog.transaction() as session, pytest.raises(WrongState):
        rerun(session, ANA, release)


@pytest.mark.parametrize(
    ("stage", "possible"), [(State.LOAD, "waive, run again"), (State.PRODUCTION, "nothing")]
)
def test_what_can_be_done_with_a_failed_release_is_said(
    catalog: Catalog, stage: State, possible: str
) -> None:
    release = failed_in(catalog, stage)
    with catalog.transaction() as session, pytest.raises(WrongState) as caught:
        withdraw(session, ANA, release)
    assert f"has failed in '{stage}'" in caught.value.message
    assert caught.value.hint == f"possible now: {possible}"


@pytest.mark.parametrize(
    ("stage", "act", "looks_again"),
    [
        (State.FUNCTIONAL, "waive", True),
        (State.INTEGRATION, "rerun", True),
        (State.INTEGRATION, "waive", False),
        (State.LOAD, "waive", False),
        (State.SHADOW, "rerun", False),
    ],
)
def test_what_failed_before_another_release_went_live_goes_on_only_through_integration(
    catalog: Catalog, stage: State, act: str, looks_again: bool
) -> None:
    """Callers of the one that is live now may not be able to stay as they are."""
    release = failed_in(catalog, stage)
    newer = served(catalog, "sha256:bb")

    def taken_on() -> None:
        with catalog.transaction() as session:
            if act == "waive":
                waive(session, QUINN, release, reason="a busy host")
            else:
                rerun(session, BORIS, release)

    if looks_again:
        taken_on()
        assert state_of(catalog, release) == State.INTEGRATION
        return
    with pytest.raises(Outdated, match=f"taken up release {newer} since") as caught:
        taken_on()
    assert caught.value.hint == "submit it again"
    assert state_of(catalog, release) == State.FAILED


def test_only_some_may_waive_and_never_the_author(catalog: Catalog) -> None:
    release = failed_in(catalog, State.FUNCTIONAL)
    with catalog.transaction() as session, pytest.raises(NotAllowed):
        waive(session, BORIS, release, reason="x")
    author = Actor("ana", EVERYTHING)
    with catalog.transaction() as session, pytest.raises(OwnRelease):
        waive(session, author, release, reason="x")
    assert state_of(catalog, release) == State.FAILED


@pytest.mark.parametrize("state", [State.LOAD, State.LIVE, State.REJECTED, State.PRODUCTION])
def test_what_has_not_failed_cannot_be_waived(catalog: Catalog, state: State) -> None:
    release = opened(catalog, state)
    with catalog.transaction() as session, pytest.raises(WrongState):
        waive(session, QUINN, release, reason="x")
    failed = failed_in(catalog, State.PRODUCTION) if state is State.LIVE else release
    with catalog.transaction() as session, pytest.raises(WrongState):
        waive(session, QUINN, failed, reason="x")


def test_a_waiver_waits_for_the_release_that_is_on_its_way(catalog: Catalog) -> None:
    release = failed_in(catalog, State.LOAD)
    opened(catalog, digest="sha256:bb")
    with catalog.transaction() as session, pytest.raises(ReleaseInFlight):
        waive(session, QUINN, release, reason="x")


def test_author_reviewer_and_approver_are_three_people_whatever_their_roles(
    catalog: Catalog,
) -> None:
    with catalog.transaction() as session:
        release = open_release(session, ANA, bundle(), required=(State.APPROVAL,))
        release_row(session, release).state = str(State.REVIEW)
    everybody = {name: Actor(name, EVERYTHING) for name in ("ana", "boris", "clara")}
    with catalog.transaction() as session, pytest.raises(OwnRelease):
        approve(session, everybody["ana"], release)
    with catalog.transaction() as session:
        approve(session, everybody["boris"], release)
    assert state_of(catalog, release) == State.FUNCTIONAL
    with catalog.transaction() as session:
        release_row(session, release).state = str(State.APPROVAL)
    for name, refusal in (("ana", OwnRelease), ("boris", SamePerson)):
        with catalog.transaction() as session, pytest.raises(refusal):
            approve(session, everybody[name], release)
        with catalog.transaction() as session, pytest.raises(refusal):
            reject(session, everybody[name], release, reason="x")
    with catalog.transaction() as session, pytest.raises(NotAllowed):
        approve(session, EVA, release)
    with catalog.transaction() as session:
        approve(session, everybody["clara"], release)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert found.state == State.CANARY
    assert [(stage.stage, stage.by) for stage in found.stages] == [
        ("review", "boris"),
        ("approval", "clara"),
    ]


def test_who_trained_the_model_is_an_author_too(catalog: Catalog) -> None:
    plain = bundle()
    manifest = msgspec.structs.replace(plain.manifest, trained_by="boris")
    with catalog.transaction() as session:
        release = open_release(session, ANA, replace(plain, manifest=manifest))
        release_row(session, release).state = str(State.REVIEW)
    with catalog.transaction() as session, pytest.raises(OwnRelease, match="boris trained"):
        approve(session, BORIS, release)


def test_approval_waits_for_a_person_only_where_it_is_required(catalog: Catalog) -> None:
    waiting = opened(catalog, State.APPROVAL)
    with catalog.transaction() as session:
        found = load_release(session, waiting)
        assert goes_on(found)
        release_row(session, waiting).required = ["approval"]
        assert not goes_on(load_release(session, waiting))
    assert run_from("review", waiting) is None


def test_the_author_takes_a_release_back_and_its_sides_end(catalog: Catalog) -> None:
    live = opened(catalog, State.LIVE)
    release = opened(catalog, State.SHADOW, digest="sha256:bb")
    with catalog.transaction() as session:
        set_live(session, "prod", release_row(session, live))
        put_side(session, "prod", release_row(session, release), Side.SHADOW, per_mille=100)
        (version,) = desired_of(session, "prod").versions
        share = Share(digest="sha256:bb", release=release, per_mille=100)
        assert version.shadows == (share,)
    with catalog.transaction() as session, pytest.raises(NotAuthor):
        withdraw(session, BORIS, release)
    with catalog.transaction() as session:
        withdraw(session, ANA, release, reason="wrong labels")
        (version,) = desired_of(session, "prod").versions
        assert version.shadows == ()
        found = load_release(session, release)
    assert found.state == State.WITHDRAWN
    assert found.reason == "withdrawn by ana: wrong labels"
    with catalog.transaction() as session, pytest.raises(WrongState):
        withdraw(session, ANA, live)


def test_a_canary_ends_early_by_a_promotion_or_a_rollback(
    catalog: Catalog, tmp_path: Path, storage: FolderStorage
) -> None:
    live = served(catalog)
    for action in ("promote", "roll back"):
        release = opened(catalog, State.CANARY, digest="sha256:bb")
        with catalog.transaction() as session:
            put_side(session, "prod", release_row(session, release), Side.CANARY, per_mille=50)
            (version,) = desired_of(session, "prod").versions
            assert version.canary == Share(digest="sha256:bb", release=release, per_mille=50)
        with catalog.transaction() as session, pytest.raises(NotAllowed):
            promote(session, QUINN, release)
        if action == "promote":
            with catalog.transaction() as session:
                promote(session, BORIS, release)
                assert load_release(session, release).stages[-1].by == "boris"
                move(session, release_row(session, release), Action.FAIL, "conveyor")
            continue
        done = roll_back(
            catalog, _AnyBundle(tmp_path), storage, BORIS, release, reason="odd answers"
        )
        assert done.serves == live
        assert read_desired(storage, "prod").versions[0].canary is None
        assert state_of(catalog, release) == State.ROLLED_BACK


def test_no_author_promotes_a_canary_whatever_the_roles(catalog: Catalog) -> None:
    release = opened(catalog, State.CANARY)
    with catalog.transaction() as session:
        release_row(session, release).trained_by = "boris"
    for name, did in (("ana", "is the author of"), ("boris", "trained the model of")):
        refusal = f"{name} {did} release {release} and cannot promote it"
        with catalog.transaction() as session, pytest.raises(OwnRelease, match=refusal):
            promote(session, Actor(name, EVERYTHING), release)
    assert state_of(catalog, release) == State.CANARY
    with catalog.transaction() as session:
        promote(session, Actor("clara", EVERYTHING), release)
    assert state_of(catalog, release) == State.PRODUCTION


@pytest.mark.parametrize("was_live", [True, False])
@pytest.mark.parametrize("end", ["withdrawn", "rejected", "failed", "rolled-back"])
def test_what_has_ended_is_served_on_test_no_more(
    catalog: Catalog, tmp_path: Path, storage: FolderStorage, end: str, was_live: bool
) -> None:
    live = [served(catalog)] if was_live else []
    stage = State.CANARY if end == "rolled-back" else State.APPROVAL
    release = opened(catalog, stage, digest="sha256:bb")
    put_live(catalog, storage, release=release, environment="test", manifest=bundle().manifest)
    assert [one.release for one in read_desired(storage, "test").versions] == [release]
    with catalog.transaction() as session:
        row = release_row(session, release)
        match end:
            case "withdrawn":
                withdraw(session, ANA, release)
            case "rejected":
                reject(session, BORIS, release, reason="leaks")
            case "failed":
                row.state = str(State.LOAD)
                move(session, row, Action.FAIL, "conveyor")
            case _:
                move(session, row, Action.ROLL_BACK, "boris")
    assert state_of(catalog, release) == end
    publish_end(catalog, storage)
    assert [one.release for one in read_desired(storage, "test").versions] == live
    # A gate that was under way brings it back as little.
    with pytest.raises(WrongState):
        put_live(catalog, storage, release=release, environment="test", manifest=bundle().manifest)
    assert [one.release for one in read_desired(storage, "test").versions] == live


def test_test_follows_production_when_that_is_rolled_back(
    catalog: Catalog, tmp_path: Path, storage: FolderStorage
) -> None:
    first, second = served(catalog), served(catalog, "sha256:bb")
    put_live(catalog, storage, release=second, environment="test", manifest=bundle().manifest)
    roll_back(catalog, _AnyBundle(tmp_path), storage, BORIS, second, reason="refuses all")
    for environment in ("test", "prod"):
        assert [one.release for one in read_desired(storage, environment).versions] == [first]


class _AnyBundle(BundleStore):
    """Every digest opens, as a bundle that reads no features."""

    def open(self, digest: str) -> object:  # type: ignore[override]
        return bundle(digest)


def run_on(
    release: str,
    stage: State,
    catalog: Catalog,
    storage: FolderStorage,
    folder: Path,
    bundles: BundleStore | None = None,
) -> None:
    """Take a release on from `stage`, through all that runs by itself."""
    bundles = bundles or _AnyBundle(folder)
    gates = replace(gate_services(catalog, folder, storage), bundles=bundles)
    services = ReleaseServices(catalog=catalog, gates=gates)
    run = run_from(stage, release)
    assert run is not None
    release_flow(services).run(SealedSteps(), run.payload)


def served(catalog: Catalog, digest: str = "sha256:aa") -> str:
    """A live release that replaced the one before."""
    with catalog.transaction() as session:
        release = open_release(session, ANA, bundle(digest))
        row = release_row(session, release)
        row.state = str(State.LIVE)
        retire_others(session, row, "ana")
        set_live(session, "prod", row)
    return release


def test_production_goes_back_to_the_release_before_or_to_any_other(
    catalog: Catalog, tmp_path: Path, storage: FolderStorage
) -> None:
    bundles = _AnyBundle(tmp_path)
    first, second, third = (served(catalog, f"sha256:{name}") for name in ("aa", "bb", "cc"))
    with catalog.transaction() as session, pytest.raises(NotAllowed):
        plan_rollback(session, bundles, QUINN, third)
    with pytest.raises(ReasonMissing):
        roll_back(catalog, bundles, storage, BORIS, third, reason="")
    with catalog.transaction() as session, pytest.raises(NotServed):
        plan_rollback(session, bundles, BORIS, "scoring/v2")
    done = roll_back(catalog, bundles, storage, BORIS, "scoring/v1", reason="refuses all")
    assert done.release == third
    assert (done.serves, done.digest) == (second, "sha256:bb")
    assert [one.release for one in read_desired(storage, "prod").versions] == [second]
    states = [state_of(catalog, one) for one in (first, second, third)]
    assert states == [State.RETIRED, State.LIVE, State.ROLLED_BACK]
    with pytest.raises(NotServed):
        roll_back(catalog, bundles, storage, BORIS, third, reason="again")
    with pytest.raises(NothingToRollBackTo, match=f"serves release {second} now"):
        roll_back(catalog, bundles, storage, BORIS, second, reason="x", to=second)
    roll_back(catalog, bundles, storage, BORIS, second, reason="worse", to=first)
    with pytest.raises(NothingToRollBackTo, match="before was rolled back") as caught:
        roll_back(catalog, bundles, storage, BORIS, first, reason="no earlier one")
    assert str(caught.value.hint).endswith(f"(--to): {second}, {third}")
    never = failed_in_flight(catalog)
    with pytest.raises(NothingToRollBackTo):
        roll_back(catalog, bundles, storage, BORIS, first, reason="x", to=never)
    roll_back(catalog, bundles, storage, BORIS, first, reason="it was right", to=third)
    assert state_of(catalog, third) == State.LIVE
    with catalog.reading() as session:
        said = {entry.action for entry in audit.entries(session, kind="release", subject=third)}
    assert {"rolled back", "restored"} <= said


def test_a_rollback_while_nodes_take_a_release_up_is_what_holds(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = served(catalog), served(catalog, "sha256:bb")
    third = opened(catalog, State.PRODUCTION, digest="sha256:cc")
    bundles = _AnyBundle(tmp_path)

    def rolled_back(*_: object) -> list[Presence]:
        roll_back(catalog, bundles, storage, BORIS, second, reason="x")
        return []

    monkeypatch.setattr(production, "wait_until_all_serve", rolled_back)
    run_on(third, State.PRODUCTION, catalog, storage, tmp_path)
    states = [state_of(catalog, one) for one in (first, second, third)]
    assert states == [State.LIVE, State.ROLLED_BACK, State.FAILED]
    assert [one.release for one in read_desired(storage, "prod").versions] == [first]


@pytest.mark.parametrize("named", ["scoring/v1", "its id"])
def test_what_nodes_are_taking_up_is_rolled_back_to_what_is_live(
    catalog: Catalog,
    storage: FolderStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    """One node may take minutes to be ready for it, while callers suffer at the others."""
    first, second = served(catalog), served(catalog, "sha256:bb")
    third = opened(catalog, State.PRODUCTION, digest="sha256:cc")
    bundles, release = _AnyBundle(tmp_path), named if "/" in named else third

    def rolled_back(*_: object) -> list[Presence]:
        assert [one.release for one in read_desired(storage, "prod").versions] == [third]
        with pytest.raises(NothingToRollBackTo, match="goes back to what is live"):
            roll_back(catalog, bundles, storage, BORIS, release, reason="x", to=first)
        done = roll_back(catalog, bundles, storage, BORIS, release, reason="refuses all")
        assert (done.release, done.serves, done.digest) == (third, second, "sha256:bb")
        assert [one.release for one in read_desired(storage, "prod").versions] == [second]
        return []

    monkeypatch.setattr(production, "wait_until_all_serve", rolled_back)
    run_on(third, State.PRODUCTION, catalog, storage, tmp_path)
    states = [state_of(catalog, one) for one in (first, second, third)]
    assert states == [State.RETIRED, State.LIVE, State.ROLLED_BACK]
    assert [one.release for one in read_desired(storage, "prod").versions] == [second]


def test_a_gate_that_has_not_seen_a_rollback_brings_nothing_back(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path
) -> None:
    """It had looked at the release's state before."""
    first = served(catalog)
    second = opened(catalog, State.PRODUCTION, digest="sha256:bb")
    roll_back(catalog, _AnyBundle(tmp_path), storage, BORIS, second, reason="x")
    manifest = bundle("sha256:bb").manifest
    with pytest.raises(WrongState, match="prod does not serve it any more"):
        put_live(catalog, storage, release=second, environment="prod", manifest=manifest)
    assert [one.release for one in read_desired(storage, "prod").versions] == [first]


def test_a_rollback_after_which_the_stage_starts_again_is_what_holds(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path
) -> None:
    first, second = served(catalog), served(catalog, "sha256:bb")
    third = opened(catalog, State.PRODUCTION, digest="sha256:cc")
    with catalog.transaction() as session:  # a process that was killed then
        set_live(session, "prod", release_row(session, third))
    roll_back(catalog, _AnyBundle(tmp_path), storage, BORIS, second, reason="x")
    run_on(third, State.PRODUCTION, catalog, storage, tmp_path)
    states = [state_of(catalog, one) for one in (first, second, third)]
    assert states == [State.LIVE, State.ROLLED_BACK, State.FAILED]
    assert [one.release for one in read_desired(storage, "prod").versions] == [first]


class _FirstAnswersAScore(_AnyBundle):
    """The output of `sha256:aa` has another name than that of all others."""

    def open(self, digest: str) -> Bundle:
        found = bundle(digest)
        name = "score" if digest == "sha256:aa" else "prediction"
        model = ModelSpec(outputs=(ScalarColumn(name, ColumnType.FLOAT64),))
        return replace(found, manifest=msgspec.structs.replace(found.manifest, model=model))


@pytest.mark.parametrize("when", ["after integration", "while it ran"])
@pytest.mark.parametrize(
    ("stage", "end"), [(State.CANARY, State.ROLLED_BACK), (State.PRODUCTION, State.FAILED)]
)
def test_callers_of_what_production_went_back_to_can_stay_as_they_are(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path, stage: State, end: State, when: str
) -> None:
    """The release was compared with one whose callers it suits, and that was rolled back since."""
    bundles = _FirstAnswersAScore(tmp_path)
    first, second = served(catalog), served(catalog, "sha256:bb")
    third = opened(catalog, stage, digest="sha256:cc")
    with catalog.transaction() as session:
        release_row(session, third).required = [State.CANARY]
        begin_stage(session, third, State.INTEGRATION, waiting_us=0, by="conveyor")
    if when == "while it ran":
        roll_back(catalog, bundles, storage, BORIS, second, reason="callers cannot read it")
    with catalog.transaction() as session:
        stage_row(session, third, State.INTEGRATION).finished_us = now_us()
    if when == "after integration":
        roll_back(catalog, bundles, storage, BORIS, second, reason="callers cannot read it")
    run_on(third, stage, catalog, storage, tmp_path, bundles)
    with catalog.reading() as session:
        found = load_release(session, third)
    assert found.state == end
    assert "output 'score' is now called 'prediction': raise api_version" in (found.reason or "")
    assert [one.release for one in read_desired(storage, "prod").versions] == [first]


def failed_in_flight(catalog: Catalog) -> str:
    return opened(catalog, State.FAILED, digest="sha256:dd")


def test_what_nodes_did_not_take_up_is_nothing_to_go_back_to(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path
) -> None:
    """It stood in the document of production, and failed there."""
    bundles = _AnyBundle(tmp_path)
    served(catalog)
    second = served(catalog, "sha256:bb")
    third = opened(catalog, State.PRODUCTION, digest="sha256:cc")
    with catalog.transaction() as session:
        set_live(session, "prod", release_row(session, third))
        move(session, release_row(session, third), Action.FAIL, "conveyor")
    with catalog.reading() as session, pytest.raises(NothingToRollBackTo) as planned:
        plan_rollback(session, bundles, BORIS, second, third)
    with pytest.raises(NothingToRollBackTo) as done:
        roll_back(catalog, bundles, storage, BORIS, second, reason="x", to=third)
    assert str(planned.value) == str(done.value)
    assert third not in (done.value.hint or "")


@pytest.mark.parametrize(
    ("away", "looks", "end"),
    [
        # 1 begins the stage, 2 is the gate's, 3 ends the stage; then it is the next stage's turn.
        ((1,), 1, State.LIVE),
        ((1, 2, 3, 4), 1, State.LIVE),
        ((2, 3, 4), 2, State.LIVE),
        ((3,), 2, State.LIVE),
        # Every second one looks whether the catalog is back.
        ((1, 3, 5, 6, 8), 0, State.FAILED),
        ((2, 5, 8, 9, 10), 3, State.FAILED),
    ],
)
def test_a_release_outlives_a_catalog_that_is_away(
    catalog: Catalog,
    storage: FolderStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    away: Sequence[int],
    looks: int,
    end: State,
) -> None:
    monkeypatch.setattr(outages, "_LOOK_EVERY_S", 0.01)
    looked = []

    def gate(context: GateContext, _: Bundle) -> Verdict:
        looked.append(context.release)
        with context.services.catalog.reading():
            return Verdict(passed=True, rule="", measured="", limit="")

    monkeypatch.setitem(GATES, State.LOAD, gate)
    release = opened(catalog, State.LOAD)
    with failing(catalog, *away):
        run_on(release, State.LOAD, catalog, storage, tmp_path)
    with catalog.reading() as session:
        found = load_release(session, release)
    assert (found.state, len(looked)) == (end, looks)
    assert found.stages[0].finished_us is not None
    if end is State.FAILED:
        assert "the database is away" in (found.reason or "")


def test_a_stage_that_watches_for_hours_outlives_a_catalog_that_is_away_again_and_again(
    catalog: Catalog, storage: FolderStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "_LOOK_EVERY_S", 0.01)

    def gate(context: GateContext, _: Bundle) -> Verdict:
        with context.services.catalog.reading():
            return Verdict(passed=True, rule="", measured="", limit="")

    monkeypatch.setitem(GATES, State.CANARY, gate)
    release = opened(catalog, State.CANARY)
    with catalog.transaction() as session:
        release_row(session, release).required = [str(State.CANARY)]
    with failing(catalog, 2, 5, 8, 11):
        run_on(release, State.CANARY, catalog, storage, tmp_path)
    assert state_of(catalog, release) == State.LIVE


def test_a_rollback_to_a_bundle_that_is_gone_changes_nothing(
    catalog: Catalog, tmp_path: Path, storage: FolderStorage
) -> None:
    served(catalog)
    second = served(catalog, "sha256:bb")
    with pytest.raises(BundleNotFound):
        roll_back(catalog, BundleStore(tmp_path), storage, BORIS, second, reason="x")
    assert state_of(catalog, second) == State.LIVE
    with catalog.reading() as session, pytest.raises(BundleNotFound):
        plan_rollback(session, BundleStore(tmp_path), BORIS, second)


def test_optional_stages_are_what_the_model_asks_for_and_the_workspace_requires() -> None:
    plain = bundle().manifest
    asking = msgspec.structs.replace(plain, release=ReleasePolicy(canary=Canary()))
    assert required_stages(plain, ReleasesSettings()) == ()
    policy = ReleasesSettings(approval=True, require=("shadow",))
    wanted = (State.SHADOW, State.APPROVAL, State.CANARY)
    assert required_stages(asking, policy) == wanted


def state_of(catalog: Catalog, release: str) -> str:
    with catalog.reading() as session:
        return load_release(session, release).state
