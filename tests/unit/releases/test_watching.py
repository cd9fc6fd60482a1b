"""What stages that watch production make of nodes that do not take the candidate up."""

import time
from pathlib import Path

import msgspec
import pytest

from konveyer.catalog.session import Catalog
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases import nodes
from konveyer.execution.releases.gates.context import GateContext
from konveyer.execution.releases.gates.watching import Refusals
from konveyer.execution.serving.presence import announced
from konveyer.execution.serving.report import Refused, Report
from tests.unit.releases.test_conveyor import gate_services

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
