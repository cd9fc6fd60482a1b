"""What ends again and again is started after pauses that grow, so that it takes no machine down."""

import io
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from konveyer.bundle.native import family
from konveyer.execution.serving import families, node

# How long it is until the next start of what has just ended after so many seconds.
Pause = Callable[[float], float]


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still but for who sets it."""
    now = [1000.0]
    for module in (family, families):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def model(tmp_path: Path, now_s: list[float], monkeypatch: pytest.MonkeyPatch) -> Pause:
    # There is no process: the group of process 0 is that of the tests.
    monkeypatch.setattr(family.Worker, "kill_others", lambda _: None)
    worker = family.Worker(wanted={"socket": str(tmp_path / "model.sock")})

    def pause(lived_s: float) -> float:
        worker.started = now_s[0] - lived_s
        worker.ended("a test")
        return worker.due - now_s[0]

    return pause


@pytest.fixture
def environment(tmp_path: Path, now_s: list[float], monkeypatch: pytest.MonkeyPatch) -> Pause:
    monkeypatch.setattr(families, "ensure_environment", lambda lock, _: lock)
    one = families._Family(tmp_path / "lock", tmp_path)
    process: Any = SimpleNamespace(stdin=io.BytesIO(), returncode=1)

    def pause(lived_s: float) -> float:
        one._started = now_s[0] - lived_s
        one._ended(process)
        return one._due - now_s[0]

    return pause


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Pause]:
    with socket.socket() as listener:
        parent = node._Node(listener, tmp_path, tmp_path, lambda *_: (), 1)
        (one,) = parent._processes
        one.was_ready = True

        def pause(lived_s: float) -> float:
            one.started_s = 1000.0 - lived_s
            parent._bury(one, 1, 1000.0)
            return one.start_at_s - 1000.0

        with closing(parent._selector):
            yield pause


@pytest.mark.parametrize(
    ("what", "first_s", "longest_s", "healthy_s"),
    [("model", 0.1, 30.0, 30.0), ("environment", 0.5, 60.0, 60.0), ("process", 0.1, 10.0, 60.0)],
)
def test_pauses_double_up_to_their_limit_and_start_anew_after_a_long_run(
    what: str, first_s: float, longest_s: float, healthy_s: float, request: pytest.FixtureRequest
) -> None:
    pause: Pause = request.getfixturevalue(what)
    doubling = [first_s, 2 * first_s, 4 * first_s, 8 * first_s]
    assert [pause(1.0) for _ in range(4)] == pytest.approx(doubling)
    assert [pause(1.0) for _ in range(12)][-2:] == [longest_s, longest_s]
    assert pause(healthy_s - 1) == longest_s
    assert pause(healthy_s + 1) == pytest.approx(first_s)
    # So many that the power itself is too large for a number.
    assert [pause(1.0) for _ in range(1100)][-1] == longest_s


def test_a_model_that_ends_on_a_full_disk_is_started_again(tmp_path: Path, model: Pause) -> None:
    (tmp_path / "model.why").symlink_to("/dev/full")
    assert [model(1.0) for _ in range(2)] == pytest.approx([0.1, 0.2])


# Says that it is ready, but for the first one only when it may, and ends with the parent.
PROCESS = """
import os, pathlib, sys, time
number, control, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
while number and not (folder / "go").exists():
    time.sleep(0.01)
os.write(control, b"r")
os.read(control, 1)
"""


def test_a_process_that_ends_while_others_start_is_started_again(tmp_path: Path) -> None:
    def command(number: int, _: int, control: int, folder: Path) -> list[str]:
        return [sys.executable, "-c", PROCESS, str(number), str(control), str(folder)]

    with socket.socket() as listener:
        parent = node._Node(listener, tmp_path, tmp_path, command, 2)
        one, other = parent._processes
        try:
            parent.run_until(lambda: one.is_ready)
            killed = one.running
            assert killed is not None
            killed.kill()
            parent.run_until(lambda: one.is_ready and one.running is not killed)
            assert not other.is_ready
            (tmp_path / "go").touch()
            parent.run_until(lambda: parent.is_ready)
        finally:
            parent.stop()
