"""Storage that is away for a while, as gates see it."""

import threading
from pathlib import Path

import pytest

from konveyer.bundle.errors import BundleNotFound
from konveyer.bundle.origin import BundleOrigin
from konveyer.bundle.store import BundleStore
from konveyer.core.storage import FolderStorage, Listed, StorageUnavailable
from konveyer.execution.releases import patient
from konveyer.execution.releases.patient import PatientBundles, PatientStorage
from tests.support import wait_for

DIGEST = f"sha256:{0:064}"


class Away(FolderStorage):
    """Storage that fails the first requests."""

    fails = 3
    asked = 0

    def listed(self, folder: str) -> list[Listed]:
        self._answer()
        return super().listed(folder)

    def read(self, name: str) -> bytes:
        self._answer()
        return super().read(name)

    def _answer(self) -> None:
        self.asked += 1
        if self.asked <= self.fails:
            raise StorageUnavailable("it is down")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "LOOK_EVERY_S", 0.01)


def test_nodes_get_the_time_to_say_that_they_are_up_once_storage_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "BEAT_EVERY_S", 0.0)
    monkeypatch.setattr(patient, "GONE_AFTER_S", 0.5)
    storage = Away(tmp_path)
    beat = threading.Timer(0.2, storage.write, ("nodes/prod/here.json", b"{}"))
    beat.start()
    found = PatientStorage(storage, 60.0).listed("nodes/prod")
    assert [one.last_part for one in found] == ["here.json"]
    assert storage.asked == 5


def test_one_request_that_fails_costs_a_moment(tmp_path: Path) -> None:
    storage = Away(tmp_path)
    assert PatientStorage(storage, 60.0).listed("nodes/prod") == []
    assert storage.asked == 4


def test_storage_is_waited_for_once_and_not_by_each_who_asks(tmp_path: Path) -> None:
    storage = Away(tmp_path)
    storage.fails = 1000
    asked = PatientStorage(storage, 0.2)
    with pytest.raises(StorageUnavailable):
        asked.listed("nodes/prod")
    before = storage.asked
    assert before > 2
    with pytest.raises(StorageUnavailable):
        asked.listed("nodes/prod")
    assert storage.asked == before + 1


def test_nobody_else_waits_with_who_is_patient_for_a_bundle(tmp_path: Path) -> None:
    storage = Away(tmp_path / "shared")
    storage.fails = 1000
    bundles = BundleStore(tmp_path / "cache", BundleOrigin(storage))
    stage = threading.Thread(target=_given_up, args=(PatientBundles(bundles, 3.0),))
    stage.start()
    wait_for(lambda: storage.asked > 2)
    with pytest.raises(StorageUnavailable):
        bundles.open(DIGEST)
    assert stage.is_alive()
    storage.fails = 0
    stage.join()


def _given_up(bundles: PatientBundles) -> None:
    with pytest.raises(BundleNotFound):
        bundles.open(DIGEST)
