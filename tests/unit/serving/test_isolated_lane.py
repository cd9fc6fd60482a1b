"""Models in processes of their own: what one of them does wrong harms nobody else."""

import asyncio
import math
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import uvloop

from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.manifest import Isolated
from konveyer.bundle.origin import hex_of
from konveyer.bundle.parity import parity
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.execution.serving.errors import (
    LaneNotReady,
    LanePreparing,
    ModelTimedOut,
    ModelUnavailable,
)
from konveyer.execution.serving.families import Families, families_following
from konveyer.execution.serving.isolated import IsolatedLane, socket_of
from konveyer.execution.serving.lanes import lane_of
from tests.serving_nodes import running_below
from tests.support import wait_for
from tests.unit.bundle.workbench import Trained, trained
from tests.unit.serving.isolation import FAULTY, packed, row
from tests.unit.serving.test_mirror import Site, follow, served


class Keeper:
    """Families that are reconciled while a test waits."""

    def __init__(self, families: Families) -> None:
        self.families = families
        self.wanted: list[Bundle] = []
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._lanes: list[IsolatedLane] = []

    def lane(self, bundle: Bundle) -> IsolatedLane:
        """A lane of the bundle once it is ready; what was wanted before stays wanted."""
        if bundle not in self.wanted:
            self.wanted.append(bundle)
        self.until(lambda: socket_of(self.families.folder, bundle.digest).exists())
        lane = lane_of(bundle, self.families.folder)
        assert isinstance(lane, IsolatedLane)
        self._lanes.append(lane)
        return lane

    def ask(self, lane: IsolatedLane, *rows: list[Any]) -> list[tuple[Any, ...]]:
        return self.runner.run(lane.predict(rows))

    def stop(self) -> None:
        for lane in self._lanes:
            lane.close()
        self.runner.run(asyncio.sleep(0.01))
        self.runner.close()
        self.families.stop()

    def until(self, holds: Callable[[], Any], within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "it did not happen in time"
            self.families.reconcile(self.wanted)
            time.sleep(0.02)

    def until_answers(self, lane: IsolatedLane, expected: float = 6.0) -> None:
        def answers() -> bool:
            try:
                return self.ask(lane, row(expected / 2)) == [(expected,)]
            except ModelUnavailable:
                return False

        self.until(answers)


@pytest.fixture
def keeper(zoo: Path) -> Iterator[Keeper]:
    with TemporaryDirectory(prefix="konveyer-") as folder:
        keeper = Keeper(Families(zoo.parents[2], Path(folder)))
        yield keeper
        keeper.stop()


@pytest.fixture(scope="module")
def run(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("faulty") / "run", zoo, FAULTY, given="codes")


@pytest.fixture(scope="module")
def faulty(run: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Bundles of the same faulty model, each with a digest of its own."""
    bundles = BundleStore(tmp_path_factory.mktemp("faulty") / "bundles")

    def made(number: int, memory_mb: int = 300) -> Bundle:
        limits = Isolated(memory_mb=memory_mb, limit_ms=1000 + number)
        return packed(run, bundles, limits=limits)

    return made


def worker_of(keeper: Keeper, bundle: Bundle) -> int:
    """The process that listens for the bundle: its socket was bound under the name of its id."""
    stem = str(socket_of(keeper.families.folder, bundle.digest).with_suffix(""))
    lines = Path("/proc/net/unix").read_text().splitlines()
    (pid,) = {line.rpartition(".")[2] for line in lines if stem in line and line.split()[3] != "0"}
    return int(pid)


def test_an_isolated_model_answers_as_where_it_was_trained(
    keeper: Keeper, zoo: Path, tmp_path: Path
) -> None:
    code = """
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

def train(features, labels, names, categorical, parameters):
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    prepared = make_column_transformer(
        (encoder, [names[place] for place in categorical]), remainder="passthrough")
    return make_pipeline(prepared, RandomForestClassifier(20, random_state=0)).fit(features, labels)
"""
    run = trained(tmp_path / "run", zoo, code, task="multiclass")
    lane = keeper.lane(packed(run, BundleStore(tmp_path / "bundles")))
    found = parity(lambda rows: keeper.ask(lane, *map(list, rows)), run.golden.cases)
    assert found.holds(1e-12), str(found)
    answered = [case for case in run.golden.cases if not case.error]
    assert len(found.differences) == len(answered)
    refused = [case.features for case in run.golden.cases if case.error]
    assert all(1e300 in row or -1e300 in row for row in refused)
    assert len(answered) > len(refused) > 0


def test_what_one_model_does_wrong_harms_no_other(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    bad, good = keeper.lane(faulty(1)), keeper.lane(faulty(2))
    pid = worker_of(keeper, faulty(2))
    with pytest.raises(ModelFailed, match="no such client"):
        keeper.ask(bad, row(101))
    with pytest.raises(ModelFailed, match="not a finite number"):
        keeper.ask(bad, row(1), row(108))
    with pytest.raises(ModelFailed, match="not a finite number"):
        keeper.ask(bad, row(115))
    with pytest.raises(ModelFailed, match="gave a text where its contract has float64"):
        keeper.ask(bad, row(109))
    with pytest.raises(ModelFailed, match="half a pair: "):
        keeper.ask(bad, row(111))
    with pytest.raises(ModelFailed, match="3 answers to 2 rows"):
        keeper.ask(bad, row(106), row(1))
    started = time.monotonic()
    with pytest.raises(ModelTimedOut, match="1001 ms"):
        keeper.ask(bad, row(102))
    assert time.monotonic() - started < 3
    assert keeper.ask(good, row(3)) == [(6.0,)]
    keeper.until_answers(bad)
    with pytest.raises(ModelUnavailable, match="ended before it answered"):
        keeper.ask(bad, row(104))
    assert keeper.ask(good, row(3)) == [(6.0,)]
    keeper.until_answers(bad)
    assert worker_of(keeper, faulty(2)) == pid


def test_an_infinite_feature_is_no_null(keeper: Keeper, faulty: Callable[..., Bundle]) -> None:
    lane = keeper.lane(faulty(3))
    for number, expected in ((math.inf, 1.0), (-math.inf, 0.0)):
        assert keeper.ask(lane, [5.0, number, Decimal("0.5"), *row(0, 5)]) == [(expected,)]


def test_a_model_that_leaks_is_ended_and_started_again(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    bundle = faulty(9_000)
    lane = keeper.lane(bundle)

    def leak() -> None:
        for _ in range(10):
            keeper.ask(lane, row(103))

    with pytest.raises((ModelFailed, ModelUnavailable), match="emory"):
        leak()
    said = socket_of(keeper.families.folder, bundle.digest).with_suffix(".why")
    keeper.until(said.exists)
    assert "memory" in said.read_text()
    keeper.until_answers(lane)


def test_memory_that_processes_could_share_counts_too(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    bundle = faulty(9_001)
    lane = keeper.lane(bundle)
    said = socket_of(keeper.families.folder, bundle.digest).with_suffix(".why")

    def leak() -> None:
        for _ in range(10):
            keeper.ask(lane, row(112))
            time.sleep(0.1)

    with pytest.raises(ModelUnavailable):
        leak()
    keeper.until(said.exists)
    assert said.read_text() == "it took more than 300 MB of memory"
    keeper.until_answers(lane)


def test_what_the_libraries_take_is_not_the_models(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    lane = keeper.lane(faulty(12, memory_mb=20))
    assert keeper.ask(lane, row(3)) == [(6.0,)]


def test_processes_that_a_model_started_end_with_it(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    lane = keeper.lane(faulty(13))
    ((pid,),) = keeper.ask(lane, row(113))
    started = psutil.Process(int(pid))
    with pytest.raises(ModelUnavailable):
        keeper.ask(lane, row(104))
    keeper.until(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE)
    keeper.until_answers(lane)


def test_a_process_that_a_model_forked_and_that_outlives_it_holds_no_caller(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    lane = keeper.lane(faulty(1))
    forked = int(keeper.ask(lane, row(114))[0][0])
    try:
        os.kill(worker_of(keeper, faulty(1)), signal.SIGKILL)
        keeper.until_answers(lane)
        assert psutil.pid_exists(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_worker_that_has_started_has_no_reason_to_have_ended(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    bundle = faulty(11)
    lane = keeper.lane(bundle)
    said = socket_of(keeper.families.folder, bundle.digest).with_suffix(".why")
    with pytest.raises(ModelUnavailable):
        keeper.ask(lane, row(104))
    keeper.until(said.exists)
    assert said.read_text() == "it was ended by signal 9"
    keeper.until_answers(lane)
    assert not said.exists()


def test_requests_that_wait_while_a_model_is_busy_are_one_batch(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    lane = keeper.lane(faulty(20_000))  # a row of 0.2 s is expected to be followed by others

    async def ask_all() -> list[Any]:
        slow = asyncio.create_task(lane.predict([row(105)]))
        await asyncio.sleep(0.05)
        many = [asyncio.create_task(lane.predict([row(107)])) for _ in range(20)]
        return [(await one)[0][0] for one in [slow, *many]]

    answers = keeper.runner.run(ask_all())
    assert len(set(answers[1:])) == 1, "the calls that answered"


def test_a_burst_costs_a_healthy_model_nothing(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    """Of 2.5 s of work each answer may take a second: the rest is dropped, and the worker lives."""
    bundle = faulty(12)
    lane = keeper.lane(bundle)
    worker = worker_of(keeper, bundle)
    assert keeper.ask(lane, row(110)) == [(220.0,)]

    async def ask_all() -> list[Any]:
        many = [asyncio.create_task(lane.predict([row(110)])) for _ in range(250)]
        return await asyncio.gather(*many, return_exceptions=True)

    # Families look every 0.05 s whether a worker takes too long, by themselves.
    answers = keeper.runner.run(ask_all())
    late = [answer for answer in answers if isinstance(answer, ModelTimedOut)]
    answered = [answer for answer in answers if answer == [(220.0,)]]
    assert len(late) + len(answered) == 250
    assert len(answered) >= 40
    started = time.monotonic()
    assert keeper.ask(lane, row(3)) == [(6.0,)]
    assert time.monotonic() - started < 0.5, "what nobody waits for is not asked"
    assert worker_of(keeper, bundle) == worker


def test_one_request_that_fails_in_a_batch_fails_alone(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    lane = keeper.lane(faulty(5))

    async def ask_all() -> list[Any]:
        tasks = [asyncio.create_task(lane.predict([row(105)]))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(lane.predict([row(code)])) for code in (1, 101, 2)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    _, first, failed, last = keeper.runner.run(ask_all())
    assert (first, last) == ([(2.0,)], [(4.0,)])
    assert isinstance(failed, ModelFailed)


def test_many_callers_at_once_are_the_first_of_a_worker(
    keeper: Keeper, faulty: Callable[[int], Bundle]
) -> None:
    lane = keeper.lane(faulty(11))

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*(lane.predict([row(code % 50)]) for code in range(250)))

    assert keeper.runner.run(ask_all()) == [[(code % 50 * 2.0,)] for code in range(250)]


def test_a_family_that_is_killed_comes_again_with_its_workers(
    keeper: Keeper, faulty: Callable[..., Bundle]
) -> None:
    bundle = faulty(6)
    lane = keeper.lane(bundle)
    worker = worker_of(keeper, bundle)
    family = int(Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert "Threads:\t1\n" in Path(f"/proc/{family}/status").read_text(), "when it forks"
    os.kill(family, signal.SIGKILL)
    keeper.until(lambda: not Path(f"/proc/{worker}").exists())
    keeper.until_answers(lane)
    assert worker_of(keeper, bundle) != worker


@pytest.mark.parametrize("remove", [Path.unlink, lambda path: shutil.rmtree(path.parent)])
def test_a_worker_whose_socket_was_removed_comes_again(
    keeper: Keeper, faulty: Callable[..., Bundle], remove: Callable[[Path], None]
) -> None:
    bundle = faulty(17)
    lane = keeper.lane(bundle)
    time.sleep(0.2)  # the family has seen it
    remove(socket_of(keeper.families.folder, bundle.digest))
    keeper.until_answers(keeper.lane(bundle))
    keeper.until_answers(lane)


@pytest.mark.parametrize(
    ("number", "name", "what"),
    [
        (7, "code/model.py", "changed"),
        (8, "code/model/__init__.py", "added"),
        (15, "native/model.pkl", "changed"),
    ],
)
def test_a_model_that_is_not_the_reviewed_one_is_never_loaded(
    keeper: Keeper,
    faulty: Callable[..., Bundle],
    tmp_path: Path,
    number: int,
    name: str,
    what: str,
) -> None:
    bundle, marker = faulty(number), tmp_path / "loaded"
    file = bundle.path / name
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".pkl":
        assert file.is_file()
        file.write_bytes(pickle.dumps(Marking(marker)))
    else:
        code = (bundle.path / "code" / "model.py").read_text()
        file.write_text(f"open({str(marker)!r}, 'w').close()\n{code}")
    lane = IsolatedLane(socket_of(keeper.families.folder, bundle.digest), bundle.manifest.model)
    with pytest.raises(LanePreparing):
        lane.check_ready()
    keeper.wanted.append(bundle)
    keeper.until(
        lambda: socket_of(keeper.families.folder, bundle.digest).with_suffix(".why").exists()
    )
    with pytest.raises(LaneNotReady, match=f"{name} of bundle .* was {what}") as caught:
        lane.check_ready()
    assert not isinstance(caught.value, LanePreparing)
    with pytest.raises(ModelUnavailable, match=f"was {what}"):
        keeper.ask(lane, row(1))
    assert not marker.exists()


class Marking:
    """Who loads the pickle of it makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self._marker), "w")


def test_what_is_not_wanted_any_more_ends(keeper: Keeper, faulty: Callable[..., Bundle]) -> None:
    first, second = faulty(9), faulty(10)
    keeper.lane(first)
    lane = keeper.lane(second)
    worker = worker_of(keeper, first)
    keeper.wanted = [second]
    keeper.until(lambda: not Path(f"/proc/{worker}").exists())
    assert keeper.ask(lane, row(3)) == [(6.0,)]


def test_what_was_live_before_and_is_not_on_the_disk_any_more_keeps_no_other_away(
    run: Trained, zoo: Path, tmp_path: Path
) -> None:
    site = Site(tmp_path)
    first, second = (packed(run, site.packing, limits=Isolated(limit_ms=ms)) for ms in (900, 901))
    mirror = site.mirror(keep_s=0.0)
    with TemporaryDirectory(prefix="konveyer-") as name:
        folder = Path(name)
        router = site.router(families=folder)

        def release(bundle: Bundle) -> None:
            site.desire(bundle)
            follow(mirror)
            wait_for(lambda: router.refresh() and router.refused == {})
            assert served(router) == bundle.digest

        def family() -> list[int]:
            found = running_below(os.getpid(), "konveyer.bundle.native.family")
            return [one.pid for one in found if one.ppid() == os.getpid()]

        with families_following(
            "prod",
            storage=site.cache,
            bundles=BundleStore(site.folder),
            environments=zoo.parents[2],
            folder=folder,
        ):
            release(first)
            release(second)
            assert not (site.folder / hex_of(first.digest)).exists()
            time.sleep(0.5)  # it runs all the same, for a rollback
            assert socket_of(folder, first.digest).exists()
            (killed,) = family()
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: family() not in ([], [killed]))
            wait_for(lambda: socket_of(folder, second.digest).exists())
            assert not socket_of(folder, first.digest).exists()
            # It is brought for a rollback, and answers only when its process is there again.
            release(first)
            assert socket_of(folder, first.digest).exists()
        assert [*folder.glob("*.sock")] == []


def test_who_waits_for_a_model_learns_that_its_environment_cannot_be_built(
    faulty: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = faulty(14)
    nowhere = tmp_path / "venvs"
    nowhere.write_text("a file where the environments should be")
    with TemporaryDirectory(prefix="konveyer-") as folder:
        families = Families(nowhere, Path(folder))
        lane = IsolatedLane(socket_of(families.folder, bundle.digest), bundle.manifest.model)

        def said() -> str:
            families.reconcile([bundle])
            with pytest.raises(LaneNotReady) as caught:
                lane.check_ready()
            return "" if isinstance(caught.value, LanePreparing) else str(caught.value)

        try:
            wait_for(said)
            assert "its environment cannot be built" in said()
            nowhere.unlink()
            # Wanted again, it is tried from the start.
            families.reconcile([])
            nowhere.mkdir()
            assert said() == ""
        finally:
            families.stop()


def test_a_model_that_is_given_up_while_it_waits_to_start_again_harms_nobody(
    keeper: Keeper, faulty: Callable[[int], Bundle]
) -> None:
    first, second = faulty(12), faulty(13)
    lane, crashing = keeper.lane(first), keeper.lane(second)
    worker = worker_of(keeper, first)
    for _ in range(5):  # each pause is twice as long, the last one 1.6 s
        keeper.until_answers(crashing)
        with pytest.raises(ModelUnavailable):
            keeper.ask(crashing, row(104))
    time.sleep(0.5)
    keeper.wanted = [first]
    keeper.families.reconcile(keeper.wanted)
    time.sleep(1)
    assert keeper.ask(lane, row(3)) == [(6.0,)]
    assert worker_of(keeper, first) == worker
