"""Shipping the prediction log: each row once, whatever is killed or down in between."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from konveyer.bundle.store import BundleStore
from konveyer.core.storage import FolderStorage, StorageUnavailable
from konveyer.execution.serving.prediction_log import PredictionLog
from konveyer.execution.serving.prediction_reader import newest_predictions, read_predictions
from konveyer.execution.serving.segments import log_folder
from konveyer.execution.serving.shipping import Shipper
from tests.manifests import manifest_with
from tests.predictions import prediction
from tests.unit.bundle.workbench import NAMES, SERVICE


class Interrupted(Exception):
    """As if the process were killed at this moment."""


class Faulty(FolderStorage):
    """Does what it is told before or after an upload."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def upload(self, path: Path, name: str) -> None:
        self.before()
        super().upload(path, name)
        self.after()


def fail(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


def logged(root: Path, *names: str) -> Path:
    folder = log_folder(root, "prod")
    log = PredictionLog(folder)
    for name in names:
        log.add(prediction(name))
    log.close()
    return folder


def rows(storage: FolderStorage) -> list[str]:
    return sorted(row["request_id"] for row in read_predictions(storage, "prod"))


def test_what_is_shipped_is_read_there_and_gone_here(tmp_path: Path) -> None:
    storage = Faulty(tmp_path / "shared")
    folder = logged(tmp_path / "node", "a", "b")
    logged(tmp_path / "node", "c")
    shipper = Shipper(folder, storage, "prod")
    assert shipper.ship() == 1
    assert shipper.ship() == 0
    assert rows(storage) == ["a", "b", "c"]
    assert list(folder.rglob("*.parquet")) == []
    logged(tmp_path / "node", "d")
    assert shipper.ship() == 1
    assert rows(storage) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("error", [Interrupted(), StorageUnavailable("it is down")])
def test_a_kill_or_an_outage_loses_no_row_and_doubles_none(
    tmp_path: Path, moment: str, error: Exception
) -> None:
    storage = Faulty(tmp_path / "shared")
    folder = logged(tmp_path / "node", "a", "b")
    setattr(storage, moment, fail(error))
    with pytest.raises(type(error)):
        Shipper(folder, storage, "prod").ship()
    logged(tmp_path / "node", "c")
    setattr(storage, moment, lambda: None)
    Shipper(folder, storage, "prod").ship()
    assert rows(storage) == ["a", "b", "c"]
    assert list(folder.rglob("*.parquet")) == []


def test_a_kill_while_a_sent_parcel_is_removed_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Faulty(tmp_path / "shared")
    logged(tmp_path / "node", "a")
    folder = logged(tmp_path / "node", "b")

    def half_removed(parcel: Path) -> None:
        next(iter(sorted(parcel.glob("*.parquet")))).unlink()
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_removed)
        with pytest.raises(Interrupted):
            Shipper(folder, storage, "prod").ship()
    Shipper(folder, storage, "prod").ship()
    assert rows(storage) == ["a", "b"]


def test_a_damaged_file_is_put_aside_and_holds_nothing_up(tmp_path: Path) -> None:
    storage = Faulty(tmp_path / "shared")
    folder = logged(tmp_path / "node", "a")
    (folder / "0-damaged.parquet").write_bytes(b"not Parquet")
    Shipper(folder, storage, "prod").ship()
    assert rows(storage) == ["a"]
    assert [path.name for path in folder.glob("*.damaged")] == ["0-damaged.parquet.damaged"]


def test_the_newest_rows_of_several_processes_are_found_in_one_object(tmp_path: Path) -> None:
    """There the rows of one process stand behind those of another."""
    storage, bundles = Faulty(tmp_path / "shared"), BundleStore(tmp_path / "bundles")
    digest = bundles.pack(manifest_with(service=SERVICE), lambda _folder: None).digest
    folder = log_folder(tmp_path / "node", "prod")
    for moments_us in ((10, 30, 50), (20, 40, 60)):
        log = PredictionLog(folder)
        for at_us in moments_us:
            features = (None,) * len(NAMES)
            log.add(prediction(f"r{at_us}", at_us=at_us, bundle=digest, features=features))
        log.close()
    assert Shipper(folder, storage, "prod").ship() == 1
    found = newest_predictions(storage, "prod", bundles, request_prefix="", limit=3)
    assert [one.request_id for one in found] == ["r60", "r50", "r40"]
