"""What is read of production's prediction log, from the files that nodes write."""

from pathlib import Path
from typing import Any

import pytest

from konveyer.core.clock import now_us
from konveyer.core.storage import FolderStorage
from konveyer.execution.releases import observed
from konveyer.execution.releases.observed import (
    Url,
    answered_rows,
    mirrored_rows,
    paired,
    rows_since,
)
from konveyer.execution.serving.prediction_files import pack_segments
from konveyer.execution.serving.prediction_log import Prediction, PredictionLog
from konveyer.execution.serving.segments import log_folder

URL = Url(application="scoring", api_version=1)


def prediction(number: int, at_us: int, **changes: Any) -> Prediction:
    values = {
        "request_id": f"r-{number}",
        "at_us": at_us,
        "environment": "prod",
        "application": "scoring",
        "api_version": 1,
        "bundle": "sha256:aa",
        "release": "rel-1",
        "side": "live",
        "caller": "till",
        "status": 200,
        "error": None,
        "keys": (number,),
        "request": (),
        "given": ("spend",),
        "fallbacks": (),
        "features": (2.5,),
        "outputs": (0.25,),
        "prediction": 0.25,
        "latency_us": 700,
    }
    return Prediction(**{**values, **changes})


def logged(root: Path, *predictions: Prediction) -> None:
    log = PredictionLog(log_folder(root, "prod"))
    for one in predictions:
        log.add(one)
    log.close()


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_one_url_since_a_moment(tmp_path: Path, packed: bool) -> None:
    now = now_us()
    logged(
        tmp_path,
        prediction(1, now - 10),
        prediction(2, now),
        prediction(3, now, release="rel-2", side="canary", status=500, outputs=None),
        prediction(4, now, application="other"),
        prediction(5, now, api_version=2),
    )
    logged(tmp_path, prediction(6, now + 1, status=404, keys=None, outputs=None, features=None))
    if packed:
        assert pack_segments(log_folder(tmp_path, "prod")) == 2
    rows = rows_since(FolderStorage(tmp_path), URL, now)
    assert sorted(row["request_id"] for row in rows) == ["r-2", "r-3", "r-6"]
    canary = next(row for row in rows if row["side"] == "canary")
    assert (canary["release"], canary["status"], canary["outputs"]) == ("rel-2", 500, None)
    live = next(row for row in rows if row["request_id"] == "r-2")
    assert (live["keys"], live["outputs"], live["latency_us"]) == ([2], [0.25], 700)


def test_a_side_with_many_rows_hides_none_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observed, "MOST_ROWS", 5)
    now = now_us()
    for part in range(3):
        rows = [prediction(100 * part + n, now + n) for n in range(4)]
        canary = prediction(part, now, release="rel-2", side="canary")
        logged(tmp_path, canary, *rows)
    found = rows_since(FolderStorage(tmp_path), URL, now)
    sides = [row["side"] for row in found]
    assert (sides.count("live"), sides.count("canary")) == (5, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_mirrored_hides_nothing_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(observed, "MOST_ROWS", 5)
    now = now_us()
    logged(tmp_path, *(prediction(n, now + n) for n in range(20)))
    shadows = [prediction(n, now + n, release="rel-2", side="shadow") for n in (0, 7)]
    later = [prediction(n, now + n) for n in range(20, 30)]
    logged(tmp_path, *shadows, *later, prediction(9, now, release="rel-3", side="shadow"))
    logged(tmp_path, *(prediction(n, now + n) for n in range(30, 40)))
    if packed:
        pack_segments(log_folder(tmp_path, "prod"))
    rows = mirrored_rows(FolderStorage(tmp_path), URL, now, "rel-2")
    pairs = paired(rows, "rel-2")
    assert {row["request_id"] for row in pairs.live} == {"r-0", "r-7"}
    assert [row["release"] for row in pairs.candidate] == ["rel-2", "rel-2"]
    assert len(rows) == 4
    many = [prediction(n, now, release="rel-4", side="shadow") for n in range(20)]
    logged(tmp_path, *many)
    most = paired(mirrored_rows(FolderStorage(tmp_path), URL, now, "rel-4"), "rel-4")
    assert len(most.live) == 5


def test_what_callers_were_answered_can_be_replayed(tmp_path: Path) -> None:
    now = now_us()
    logged(
        tmp_path,
        prediction(1, now),
        prediction(2, now, side="shadow"),
        prediction(3, now, status=503, outputs=None),
        prediction(4, now, keys=None),
        prediction(5, now, side="canary"),
    )
    rows = answered_rows(FolderStorage(tmp_path), URL, 10)
    assert [row["request_id"] for row in rows] == ["r-5", "r-1"]
    assert (rows[1]["given"], rows[1]["features"]) == (["spend"], [2.5])
    assert len(answered_rows(FolderStorage(tmp_path), URL, 1)) == 1
    assert answered_rows(FolderStorage(tmp_path / "none"), URL, 1) == []
