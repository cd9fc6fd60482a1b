"""The prediction log goes on, whatever is done to its files."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.metrics import LOG_LOST
from konveyer.execution.serving.prediction_files import pack_segments
from konveyer.execution.serving.prediction_log import (
    MOST_WAITING_BYTES,
    PredictionLog,
)
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.segments import CLOSED, log_folder
from tests.predictions import prediction
from tests.support import wait_for


def remove_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("remove", [remove_files, shutil.rmtree])
def test_what_is_asked_after_somebody_removed_the_files_is_logged(
    tmp_path: Path, remove: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = log_folder(tmp_path, "prod")
    log = PredictionLog(folder, segment_s=0.5)
    log.add(prediction("removed"))
    wait_for(lambda: any(folder.glob("*.open")))
    remove(folder)
    wait_for(lambda: "cannot be closed" in caplog.text)
    log.add(prediction("after"))
    log.close()
    found = list(read_predictions(FolderStorage(tmp_path), "prod"))
    assert [one["request_id"] for one in found] == ["after"]


def test_infinite_features_are_told_from_nulls(tmp_path: Path) -> None:
    folder = log_folder(tmp_path, "prod")
    log = PredictionLog(folder)
    for features in [(math.inf, None, "Oslo", -math.inf), (1.5, None, "Oslo", 2.5), None]:
        log.add(prediction(features=features))
    log.close()
    expected = [["Infinity", None, "Oslo", "-Infinity"], [1.5, None, "Oslo", 2.5], None]
    for read in range(2):
        found = read_predictions(FolderStorage(tmp_path), "prod")
        assert [one["features"] for one in found][::-1] == expected, read
        pack_segments(folder)
    assert any(folder.glob("*.parquet"))


def test_what_waits_for_a_disk_is_bounded_by_what_was_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = log_folder(tmp_path, "prod")
    log = PredictionLog(folder, segment_s=0.0)
    folder.rmdir()
    folder.touch()  # nothing can be written there
    before = LOG_LOST._value.get()
    log.add(prediction("read"), MOST_WAITING_BYTES // 2)
    wait_for(lambda: "cannot be written" in caplog.text)
    for name in ("queued", "too much", "too much"):
        log.add(prediction(name), MOST_WAITING_BYTES // 2)
    log.add(prediction("small"))
    folder.unlink()
    wait_for(lambda: any(folder.glob(f"*{CLOSED}")))
    log.add(prediction("after"), MOST_WAITING_BYTES)
    log.close()
    found = read_predictions(FolderStorage(tmp_path), "prod")
    assert {one["request_id"] for one in found} == {"read", "queued", "small", "after"}
    assert LOG_LOST._value.get() - before == 2
