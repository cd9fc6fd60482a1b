"""Models in processes of their own that raise, hang, leak and die, in a node under load."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from konveyer.bundle.manifest import Isolated, Serving
from konveyer.bundle.store import Bundle
from konveyer.execution.releases import nodes
from konveyer.execution.releases.nodes import NodeAccess, wait_until_serving
from konveyer.wiring import open_bundle_store
from tests.serving_nodes import Load, Node, running_below, serving, wait_for_bundle
from tests.serving_space import ServingSpace
from tests.support import wait_for
from tests.unit.bundle.workbench import NAMES, Trained, trained
from tests.unit.serving.isolation import FAULTY, packed

PATH = "/zoo/v1/predict"
RAISE, HANG, LEAK, DIE, NAN = 101, 102, 103, 104, 108


def body(code: float) -> dict[str, float | None]:
    """Every feature is given; what the model does stands in the first."""
    return {name: code if name == NAMES[0] else None for name in NAMES}


@pytest.fixture(scope="module")
def run(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("isolated") / "run", zoo, FAULTY, given="codes")


@pytest.fixture
def space(zoo: Path, made_space: ServingSpace, tmp_path: Path) -> ServingSpace:
    """A space whose nodes find the environment of the models built already."""
    shutil.copytree(made_space.root, tmp_path / "space")
    space = ServingSpace(tmp_path / "space")
    space.state.mkdir(exist_ok=True)
    (space.state / "venvs").symlink_to(zoo.parents[2])
    return space


def isolated(space: ServingSpace, run: Trained, number: int, application: str = "zoo") -> Bundle:
    """One of the same faulty models, with a digest of its own."""

    class Given(Trained):
        @property
        def manifest(self):  # type: ignore[no-untyped-def]
            return msgspec.structs.replace(super().manifest, serving=Serving(given=NAMES))

    given = Given(run.folder, run.result)
    limits = Isolated(memory_mb=300, limit_ms=1000 + number)
    return packed(given, open_bundle_store(space.settings), limits=limits, application=application)


@pytest.fixture
def node(space: ServingSpace, run: Trained) -> Iterator[Node]:
    """It serves a faulty model beside a compiled one."""
    faulty = isolated(space, run, 1)
    space.desire(space.pack(1), faulty)
    with serving(space, processes=2) as node:
        wait_for_bundle(node, faulty.digest)
        yield node


def ask(client: httpx.Client, code: float) -> tuple[int, object]:
    answer = client.post(PATH, json=body(code))
    content = answer.json()
    return answer.status_code, content.get("error", {}).get("code", "") or content["prediction"]


def answers_again(client: httpx.Client) -> None:
    wait_for(lambda: ask(client, 3) == (200, 6.0))


def workers(node: Node) -> list[psutil.Process]:
    return running_below(node.parent.pid, "konveyer.bundle.native.family")


def test_what_an_isolated_model_does_harms_no_other(node: Node) -> None:
    with Load(node.url) as compiled, node.client() as client:
        answers_again(client)
        assert ask(client, RAISE) == (500, "model_failed")
        assert ask(client, NAN) == (500, "model_failed")
        assert ask(client, 3) == (200, 6.0)
        assert ask(client, HANG)[0] in (503, 504)
        answers_again(client)
        assert ask(client, DIE) == (503, "model_unavailable")
        answers_again(client)
        for _ in range(6):
            status, _ = ask(client, LEAK)
            assert status in (200, 500, 503, 504)
        answers_again(client)
        compiled.more(200)
    assert compiled.statuses == {200}
    assert compiled.broken == []


def test_a_model_that_hangs_leaves_room_for_others(space: ServingSpace, run: Trained) -> None:
    """It has more callers than a process takes requests, and those refused come again at once."""
    with (space.root / "konveyer.toml").open("a") as settings:
        settings.write("most_under_way = 64\n")
    faulty = isolated(space, run, 9_000)
    other = isolated(space, run, 9_000, "other")
    space.desire(space.pack(1), faulty, other)
    bodies = [msgspec.json.encode(body(HANG))]
    good = [msgspec.json.encode(body(3))]
    with serving(space, processes=1) as node:
        wait_for_bundle(node, faulty.digest)
        wait_for_bundle(node, other.digest)
        with (
            Load(node.url, connections=70, path=PATH, bodies=bodies) as hanging,
            Load(node.url, connections=2) as compiled,
            Load(node.url, connections=2, path="/other/v1/predict", bodies=good) as waits,
        ):
            compiled.more(200)
            waits.more(50)
    assert compiled.statuses == waits.statuses == {200}
    assert 429 in hanging.statuses
    assert hanging.broken == compiled.broken == []


def test_a_node_is_ready_when_its_isolated_models_are(space: ServingSpace, run: Trained) -> None:
    space.desire(space.pack(1), isolated(space, run, 1))
    with serving(space, processes=2, serves=False) as node, node.client() as client:
        wait_for(lambda: client.get("/health/ready").is_success)
        assert {ask(client, 3)[0] for _ in range(50)} == {200}


def test_a_release_waits_for_a_node_that_prepares_its_model(
    space: ServingSpace, zoo: Path, run: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 1.5)
    (space.state / "venvs").unlink()
    python = space.state / "venvs" / zoo.parents[1].name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nsleep 4\nexec {zoo} "$@"\n')
    python.chmod(0o755)
    slow = isolated(space, run, 3)
    space.desire(space.pack(1))
    with serving(space, processes=2) as node:
        space.desire(space.pack(1), slow)
        wait_until_serving(NodeAccess(node.url, {}), "zoo", 1, slow.digest)
        with node.client() as client:
            assert client.get("/health/ready").json()["preparing"] == []


def test_a_killed_worker_or_family_comes_again(node: Node) -> None:
    bodies = [msgspec.json.encode(body(3))]
    with node.client() as client:
        answers_again(client)
        with (
            Load(node.url) as compiled,
            Load(node.url, connections=4, path=PATH, bodies=bodies) as killed,
        ):
            for victim in (workers(node)[-1], workers(node)[0]):
                os.kill(victim.pid, signal.SIGKILL)
                wait_for(lambda: victim not in workers(node))  # noqa: B023 - at once
                answers_again(client)
                killed.more(100)
            compiled.more(200)
    assert compiled.statuses == {200}
    assert killed.statuses == {200, 503}
    assert killed.codes == {"model_unavailable"}
    assert compiled.broken == killed.broken == []


def test_a_swap_and_a_rollback_of_isolated_models_fail_no_request(
    space: ServingSpace, run: Trained
) -> None:
    first, second = isolated(space, run, 1), isolated(space, run, 2)
    bodies = [msgspec.json.encode(body(number)) for number in range(10)]
    space.desire(first)
    with (
        serving(space, processes=2) as node,
        Load(node.url, connections=4, path=PATH, bodies=bodies) as load,
    ):
        load.more(50)
        for bundle in (second, first, second):
            space.desire(bundle)
            wait_for_bundle(node, bundle.digest)
            load.more(50)
    assert load.statuses == {200}
    assert load.broken == []
    assert load.bundles() == {first.digest, second.digest}


def test_a_killed_parent_leaves_no_worker(space: ServingSpace, run: Trained) -> None:
    faulty = isolated(space, run, 1)
    space.desire(faulty)
    with serving(space, processes=1) as node, node.client() as client:
        answers_again(client)
        below = psutil.Process(node.parent.pid).children(recursive=True)
        assert workers(node)
        node.parent.kill()
        node.parent.wait()
        wait_for(lambda: not [one for one in below if one.is_running()])
