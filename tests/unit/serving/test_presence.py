"""Who is up, told by what they write: on this machine by their process, on others by the time."""

import os
import threading
import time
from pathlib import Path

import msgspec
import pytest

from konveyer.core.storage import FolderStorage, StorageUnavailable
from konveyer.execution.releases import nodes
from konveyer.execution.releases.nodes import NodeMissing, wait_until_all_serve
from konveyer.execution.serving import presence
from konveyer.execution.serving.presence import announced, nodes_of
from konveyer.execution.serving.report import Refused, Report, Serving

SERVING = Serving(application="a", api_version=1, digest="sha256:1")
REFUSED = Refused(application="a", api_version=1, digest="sha256:1", reason="it is damaged")
PREPARING = msgspec.structs.replace(REFUSED, reason="it starts", is_preparing=True)


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def elsewhere(storage: FolderStorage, name: str, report: Report, *, silent_s: float = 0.0) -> Path:
    """A node of another machine that wrote its last words so long ago."""
    told = presence.Presence(
        environment="prod", url=f"http://{name}", host=name, pid=1, started_us=0, report=report
    )
    storage.write(f"nodes/prod/{name}-1.json", msgspec.json.encode(told))
    path = storage.path_of(f"nodes/prod/{name}-1.json")
    os.utime(path, (time.time() - silent_s,) * 2)
    return path


def test_a_node_is_known_while_it_runs_with_what_it_serves(storage: FolderStorage) -> None:
    reports = [Report()]
    with announced(storage, "prod", "http://here", lambda: reports[-1]) as tell:
        (node,) = nodes_of(storage, "prod")
        assert (node.url, node.report) == ("http://here", Report())
        assert node.is_heard
        assert nodes_of(storage, "pro") == nodes_of(storage, "prod-2") == []
        reports.append(Report(serving=(SERVING,), refused=(REFUSED,)))
        tell()
        deadline = time.monotonic() + 5
        while not nodes_of(storage, "prod")[0].report.serving:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (node,) = nodes_of(storage, "prod")
        assert node.serves("a", 1, "sha256:1")
        assert not node.serves("a", 1, "sha256:1", side="canary")
        assert node.refusal("a", 1, "sha256:1") == REFUSED
        assert node.refusal("a", 1, "sha256:2") is None
    assert nodes_of(storage, "prod") == []


def test_a_node_of_another_machine_is_up_while_it_is_heard_of(storage: FolderStorage) -> None:
    elsewhere(storage, "fresh", Report())
    elsewhere(storage, "late", Report(), silent_s=10)
    elsewhere(storage, "gone", Report(), silent_s=20)
    forgotten = elsewhere(storage, "forgotten", Report(), silent_s=4000)
    found = {node.host: node.is_heard for node in nodes_of(storage, "prod")}
    assert found == {"fresh": True, "late": False}
    assert not forgotten.exists()


def test_what_cannot_be_read_is_no_node(storage: FolderStorage) -> None:
    storage.write("nodes/prod/strange-1.json", b"{")
    assert nodes_of(storage, "prod") == []


def test_a_storage_that_is_down_stops_no_node_and_hears_of_it_later(tmp_path: Path) -> None:
    class Down(FolderStorage):
        is_down = True

        def write(self, name: str, content: bytes) -> None:
            if self.is_down:
                raise StorageUnavailable("it is down")
            super().write(name, content)

        def remove(self, name: str) -> None:
            if self.is_down:
                raise StorageUnavailable("it is down")
            super().remove(name)

    storage = Down(tmp_path)
    with announced(storage, "prod", "http://here", Report) as tell:
        assert nodes_of(storage, "prod") == []
        storage.is_down = False
        tell()
        deadline = time.monotonic() + 5
        while not nodes_of(storage, "prod"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        storage.is_down = True


def test_a_release_waits_for_every_node_and_for_none_that_is_gone(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.3)
    asked = (storage, "prod", "a", 1, "sha256:1")
    assert wait_until_all_serve(*asked) == []
    elsewhere(storage, "one", Report(serving=(SERVING,)))
    elsewhere(storage, "two", Report(refused=(REFUSED,)))
    with pytest.raises(NodeMissing, match=r"http://two .* it is damaged"):
        wait_until_all_serve(*asked)
    # It died without a word: it is waited for until it counts as gone, and no longer.
    elsewhere(storage, "two", Report(), silent_s=presence.GONE_AFTER_S - 1.0)
    started = time.monotonic()
    assert [node.host for node in wait_until_all_serve(*asked)] == ["one"]
    assert 0.9 < time.monotonic() - started < 4
    # One that is slow is waited for.
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 10.0)
    elsewhere(storage, "two", Report())
    later = threading.Timer(0.3, elsewhere, (storage, "two", Report(serving=(SERVING,))))
    later.start()
    assert len(wait_until_all_serve(*asked)) == 2
    later.join()


def test_a_release_waits_longer_for_a_node_that_is_preparing_and_not_for_ever(
    storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "FOLLOW_WITHIN_S", 0.2)
    asked = (storage, "prod", "a", 1, "sha256:1")

    def after(seconds: float, report: Report) -> None:
        elsewhere(storage, "one", Report(refused=(PREPARING,)))
        threading.Timer(seconds, elsewhere, (storage, "one", report)).start()

    after(1.0, Report(serving=(SERVING,)))
    assert len(wait_until_all_serve(*asked)) == 1
    after(1.0, Report(refused=(REFUSED,)))
    started = time.monotonic()
    with pytest.raises(NodeMissing, match="it is damaged"):
        wait_until_all_serve(*asked)
    assert time.monotonic() - started > 0.9
    # Another one that prepares is no reason to wait for one that does not.
    elsewhere(storage, "two", Report(refused=(PREPARING,)))
    with pytest.raises(NodeMissing, match=r"http://one .* it is damaged"):
        wait_until_all_serve(*asked)
    elsewhere(storage, "one", Report(serving=(SERVING,)))
    monkeypatch.setattr(nodes, "PREPARE_WITHIN_S", 0.5)
    with pytest.raises(NodeMissing, match=r"http://two .* it starts"):
        wait_until_all_serve(*asked)
