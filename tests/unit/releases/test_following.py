"""What is read of production's prediction log, from the files that nodes write."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from konveyer.core.clock import now_us
from konveyer.core.storage import FolderStorage, Listed
from konveyer.execution.releases import following
from konveyer.execution.releases.following import MirroredLog, SidesLog, answered_rows
from konveyer.execution.releases.observed import Url, paired
from konveyer.execution.serving.prediction_files import pack_segments
from konveyer.execution.serving.prediction_log import Prediction, PredictionLog
from konveyer.execution.serving.prediction_reader import read_predictions
from konveyer.execution.serving.segments import hour_folder, log_folder
from konveyer.execution.serving.shipping import Shipper
from tests.predictions import prediction as any_prediction

URL = Url(application="scoring", api_version=1)
HOUR_US = 3_600_000_000


def prediction(number: int, at_us: int, **changes: Any) -> Prediction:
    values = {
        "at_us": at_us,
        "application": "scoring",
        "bundle": "sha256:aa",
        "release": "rel-1",
        "caller": "till",
        "keys": (number,),
        "given": ("spend",),
        "features": (2.5,),
        "latency_us": 700,
    }
    return any_prediction(f"r-{number}", **{**values, **changes})


def logged(root: Path, *predictions: Prediction) -> None:
    log = PredictionLog(log_folder(root, "prod"))
    for one in predictions:
        log.add(one)
    log.close()


def segment(root: Path, began_us: int, *predictions: Prediction, kind: str = "jsonl") -> Path:
    """A file of the log as a process that began it then leaves it."""
    path = log_folder(root, "prod") / f"{began_us:016d}-1-ab.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.Encoder().encode_lines(predictions))
    return path


class Counting(FolderStorage):
    """Storage that knows what was asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []

    def read(self, name: str) -> bytes:
        self.asked.append(name.rpartition("/")[2])
        return super().read(name)

    def listed(self, folder: str) -> list[Listed]:
        self.asked.append(folder)
        return super().listed(folder)

    def news(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


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
    rows = SidesLog(FolderStorage(tmp_path), URL, now).rows()
    assert sorted(row["request_id"] for row in rows) == ["r-2", "r-3", "r-6"]
    canary = next(row for row in rows if row["side"] == "canary")
    assert (canary["release"], canary["status"], canary["outputs"]) == ("rel-2", 500, None)
    live = next(row for row in rows if row["request_id"] == "r-2")
    assert (live["keys"], live["outputs"], live["latency_us"]) == ([2], [0.25], 700)


def test_a_side_with_many_rows_hides_none_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_ROWS", 5)
    now = now_us()
    for part in range(3):
        rows = [prediction(100 * part + n, now + n) for n in range(4)]
        canary = prediction(part, now, release="rel-2", side="canary")
        logged(tmp_path, canary, *rows)
    found = SidesLog(FolderStorage(tmp_path), URL, now).rows()
    sides = [row["side"] for row in found]
    assert (sides.count("live"), sides.count("canary")) == (5, 3)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_mirrored_hides_nothing_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(following, "MOST_ROWS", 5)
    now = now_us()
    logged(tmp_path, *(prediction(n, now + n) for n in range(20)))
    shadows = [prediction(n, now + n, release="rel-2", side="shadow") for n in (0, 7)]
    later = [prediction(n, now + n) for n in range(20, 30)]
    logged(tmp_path, *shadows, *later, prediction(9, now, release="rel-3", side="shadow"))
    logged(tmp_path, *(prediction(n, now + n) for n in range(30, 40)))
    if packed:
        pack_segments(log_folder(tmp_path, "prod"))
    rows = MirroredLog(FolderStorage(tmp_path), URL, now, "rel-2").rows()
    pairs = paired(rows, "rel-2")
    assert {row["request_id"] for row in pairs.live} == {"r-0", "r-7"}
    assert [row["release"] for row in pairs.candidate] == ["rel-2", "rel-2"]
    assert len(rows) == 4
    many = [prediction(n, now, release="rel-4", side="shadow") for n in range(20)]
    logged(tmp_path, *many)
    most = paired(MirroredLog(FolderStorage(tmp_path), URL, now, "rel-4").rows(), "rel-4")
    assert len(most.live) == 5


def test_what_callers_were_answered_can_be_replayed(tmp_path: Path) -> None:
    now = now_us()
    logged(
        tmp_path,
        prediction(1, now),
        prediction(2, now, side="shadow"),
        prediction(3, now, status=503, outputs=None),
        prediction(4, now, keys=None),  # by values alone
        prediction(5, now, side="canary"),
    )
    rows = answered_rows(FolderStorage(tmp_path), URL, 10)
    assert [row["request_id"] for row in rows] == ["r-5", "r-4", "r-1"]
    assert (rows[2]["given"], rows[2]["features"]) == (["spend"], [2.5])
    assert len(answered_rows(FolderStorage(tmp_path), URL, 1)) == 1
    assert answered_rows(FolderStorage(tmp_path / "none"), URL, 1) == []
    week_us = 7 * 24 * HOUR_US
    segment(tmp_path, now - week_us + HOUR_US, prediction(7, now - week_us + HOUR_US))
    segment(tmp_path, now - week_us - HOUR_US, prediction(8, now - week_us - HOUR_US))
    lately = answered_rows(FolderStorage(tmp_path), URL, 10)
    assert [row["request_id"] for row in lately] == ["r-5", "r-4", "r-1", "r-7"]


def test_one_with_little_traffic_is_found_among_many_files_of_others(tmp_path: Path) -> None:
    now = now_us()
    copy = prediction(1, now, release="rel-2", side="shadow")
    segment(tmp_path, now, prediction(1, now), copy)
    for number in range(1, 700):
        other = prediction(number, now + number, application="other")
        segment(tmp_path, now + number, other)
    storage = FolderStorage(tmp_path)
    sides = SidesLog(storage, URL, now).rows()
    assert sorted(row["side"] for row in sides) == ["live", "shadow"]
    pairs = paired(MirroredLog(storage, URL, now, "rel-2").rows(), "rel-2")
    assert [row["request_id"] for row in pairs.live] == ["r-1"]
    assert [row["request_id"] for row in answered_rows(storage, URL, 5)] == ["r-1"]


def test_a_file_is_read_once_and_again_while_it_is_written(tmp_path: Path) -> None:
    now, storage = now_us(), Counting(tmp_path)
    log = SidesLog(storage, URL, now)
    closed = segment(tmp_path, now, prediction(1, now))
    grows = segment(tmp_path, now + 1, prediction(2, now), kind="open")
    folder = "predictions/prod"

    def seen() -> list[str]:
        return sorted(row["request_id"] for row in log.rows())

    assert seen() == ["r-1", "r-2"]
    assert storage.news() == [folder, grows.name, closed.name]
    segment(tmp_path, now + 1, prediction(2, now), prediction(3, now), kind="open")
    assert seen() == ["r-1", "r-2", "r-3"]
    assert storage.news() == [folder, grows.name]
    shut = grows.rename(grows.with_suffix(".jsonl"))
    late = segment(tmp_path, now - 5, prediction(4, now))
    assert seen() == ["r-1", "r-2", "r-3", "r-4"]
    assert storage.news() == [folder, shut.name, late.name]
    assert pack_segments(log_folder(tmp_path, "prod")) == 3
    assert seen() == ["r-1", "r-2", "r-3", "r-4"]
    assert storage.news() == [folder]


@pytest.mark.parametrize("kind", ["jsonl", "open"])
def test_a_copy_finds_the_answer_that_was_read_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(following, "MOST_ROWS", 3)
    monkeypatch.setattr(following, "MOST_ANSWERS", 6)
    now = now_us()
    log = MirroredLog(FolderStorage(tmp_path), URL, now, "rel-2")

    def found() -> list[str]:
        pairs = paired(log.rows(), "rel-2")
        return sorted(row["request_id"] for row in pairs.live)

    segment(tmp_path, now, *(prediction(n, now) for n in range(4)))
    assert found() == []
    copies = [prediction(n, now, release="rel-2", side="shadow") for n in range(8)]
    segment(tmp_path, now + 1, copies[1], prediction(4, now), copies[3], copies[4], kind=kind)
    assert found() == found() == ["r-1", "r-3", "r-4"]
    if kind == "open":
        return
    # Many other answers hide none of those, and are not all kept.
    segment(tmp_path, now + 2, *(prediction(n, now) for n in range(10, 30)))
    assert found() == ["r-1", "r-3", "r-4"]
    segment(tmp_path, now + 3, copies[2], prediction(5, now), copies[5])
    assert found() == ["r-4", "r-5"]


def test_of_a_bucket_the_hours_that_may_still_grow_are_listed_again(tmp_path: Path) -> None:
    now, storage = now_us(), Counting(tmp_path / "bucket")
    shipper = Shipper(log_folder(tmp_path, "prod"), storage, "prod")
    old = f"{hour_folder('prod', now - 3 * HOUR_US)}/{now - 3 * HOUR_US:016d}-a.parquet"
    logged(tmp_path, prediction(1, now - 3 * HOUR_US))
    pack_segments(log_folder(tmp_path, "prod"))
    (packed,) = log_folder(tmp_path, "prod").glob("*.parquet")
    storage.upload(packed, old)
    packed.unlink()
    log = SidesLog(storage, URL, now - 4 * HOUR_US)
    assert [row["request_id"] for row in log.rows()] == ["r-1"]
    assert old.rpartition("/")[0] in storage.news()
    logged(tmp_path, prediction(2, now))
    assert shipper.ship() == 1
    assert [row["request_id"] for row in log.rows()] == ["r-1", "r-2"]
    assert old.rpartition("/")[0] not in storage.news()


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_line_costs_that_line_and_is_kept_aside(tmp_path: Path, packed: bool) -> None:
    now = now_us()
    path = segment(tmp_path, now, *(prediction(number, now + number) for number in range(3)))
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:40] + b"\xff\n" + third)
    segment(tmp_path, now + 1, prediction(9, now + 9))
    if packed:
        assert pack_segments(log_folder(tmp_path, "prod")) == 2
        assert pack_segments(log_folder(tmp_path, "prod")) == 0
        assert path.with_name(f"{path.name}.damaged").exists()
    rows = SidesLog(FolderStorage(tmp_path), URL, now).rows()
    assert sorted(row["request_id"] for row in rows) == ["r-0", "r-2", "r-9"]
    again = [row["request_id"] for row in read_predictions(FolderStorage(tmp_path), "prod")]
    assert sorted(again) == ["r-0", "r-2", "r-9"]


def test_a_damaged_file_costs_its_rows(tmp_path: Path) -> None:
    now = now_us()
    segment(tmp_path, now, prediction(1, now)).with_suffix(".parquet").write_bytes(b"PAR1 no more")
    segment(tmp_path, now + 1, prediction(9, now + 9))
    rows = SidesLog(FolderStorage(tmp_path), URL, now).rows()
    assert [row["request_id"] for row in rows] == ["r-9"]
    again = [row["request_id"] for row in read_predictions(FolderStorage(tmp_path), "prod")]
    assert again == ["r-9"]
