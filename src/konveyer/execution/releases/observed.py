"""What production's prediction log says of the releases at one URL."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.bundle.release_policy import MOST_WATCHED_ROWS
from konveyer.core.storage import Storage
from konveyer.execution.releases.beside import Seen
from konveyer.execution.releases.gates.answers import distance
from konveyer.execution.releases.live import PROD
from konveyer.execution.serving.prediction_files import newest_first, read_columns
from konveyer.execution.serving.prediction_reader import LONGEST_US
from konveyer.execution.serving.segments import shipped_folder

Row = dict[str, Any]
# So many rows of each release on a side are looked at, in so many files.
MOST_ROWS = MOST_WATCHED_ROWS
_MOST_FILES = 500
_COLUMNS = ("request_id", "bundle", "release", "side", "status", "latency_us")
_LISTS = ("keys", "request", "outputs")
_REPLAYED = (*_LISTS, "given", "features")


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An application's version."""

    application: str
    api_version: int


def rows_since(storage: Storage, url: Url, since_us: int) -> list[Row]:
    """The rows of the URL since an instant, at most `MOST_ROWS` of each release on a side."""
    found: list[Row] = []
    taken: Counter[tuple[str, str]] = Counter()
    for table in _logged(storage, url, since_us, _LISTS):
        for pair in table.group_by(["release", "side"]).aggregate([]).to_pylist():
            release, side = pair["release"], pair["side"]
            is_its = (pc.field("release") == release) & (pc.field("side") == side)
            rows = _newest(table.filter(is_its), MOST_ROWS - taken[release, side], _LISTS)
            taken[release, side] += len(rows)
            found += rows
    return found


def mirrored_rows(storage: Storage, url: Url, since_us: int, release: str) -> list[Row]:
    """What the shadow `release` was asked since an instant, at most `MOST_ROWS`, and those requests
    as production answered them, however many others it answered meanwhile.
    """
    found: list[Row] = []
    asked: set[str] = set()
    count = 0
    for table in _logged(storage, url, since_us, _LISTS):
        # A node logs the answer before it asks the shadow: in this file, or in an older one.
        shadow = pc.field("side") == "shadow"
        mirrored = table.filter(shadow & (pc.field("release") == release))
        rows = _newest(mirrored, MOST_ROWS - count, _LISTS)
        count += len(rows)
        asked |= {row["request_id"] for row in rows}
        its = pc.field("request_id").isin(pa.array([*asked], pa.string()))
        answered = table.filter(~shadow & its)
        found += [*rows, *_newest(answered, len(answered), _LISTS)]
    return found


def answered_rows(storage: Storage, url: Url, most: int) -> list[Row]:
    """Rows that production answered to callers lately."""
    found: list[Row] = []
    of_callers = (pc.field("side") != "shadow") & (pc.field("keys") != "null")
    for table in _logged(storage, url, 0, _REPLAYED):
        answered = table.filter(of_callers & (pc.field("status") == int(HTTPStatus.OK)))
        found += _newest(answered, most - len(found), _REPLAYED)
        if len(found) >= most:
            break
    return found


def _logged(storage: Storage, url: Url, since_us: int, lists: Sequence[str]) -> Iterator[pa.Table]:
    """From the newest file back; lists are still JSON."""
    since = pa.scalar(since_us, pa.timestamp("us", "UTC"))
    wanted = (
        (pc.field("application") == url.application)
        & (pc.field("api_version") == url.api_version)
        & (pc.field("at") >= since)
    )
    columns = ["application", "api_version", "at", *_COLUMNS, *lists]
    for name in islice(newest_first(storage, shipped_folder(PROD)), _MOST_FILES):
        began_us = int(name.rpartition("/")[2].partition("-")[0])
        if began_us < since_us - LONGEST_US:
            return
        table = read_columns(storage, name, columns).filter(wanted)
        at_us = table.column("at").cast(pa.int64())
        yield table.select([*_COLUMNS, *lists]).append_column("at_us", at_us)


def _newest(table: pa.Table, most: int, lists: Sequence[str]) -> list[Row]:
    """The last rows of a file, the newest first."""
    rows = table.slice(max(0, len(table) - max(0, most))).to_pylist()[::-1]
    return [row | {name: msgspec.json.decode(row[name]) for name in lists} for row in rows]


def seen(rows: Iterable[Row]) -> Seen:
    """The rows as a side that is judged: what callers did wrong is nobody's failure."""
    counted = [row for row in rows if not 400 <= row["status"] < 500]
    return Seen(
        failed=[row["status"] >= 500 for row in counted],
        took_ms=[row["latency_us"] / 1000 for row in counted],
        outputs=[tuple(row["outputs"]) for row in counted if row["outputs"] is not None],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Rows that both the live version and the candidate were asked, in the same order."""

    live: Sequence[Row]
    candidate: Sequence[Row]

    @property
    def distances(self) -> list[float]:
        """Between the two answers of each row that both answered."""
        return [distance(a["outputs"], b["outputs"]) for a, b in self._answered]

    def worst(self, most: int) -> list[dict[str, Any]]:
        """The rows whose answers are furthest apart, with both."""
        ranked = sorted(self._answered, key=lambda pair: -_apart(pair))[:most]
        return [
            {"keys": a["keys"], "request": a["request"], "live": a["outputs"], "this": b["outputs"]}
            for a, b in ranked
        ]

    @property
    def _answered(self) -> list[tuple[Row, Row]]:
        both = zip(self.live, self.candidate, strict=True)
        return [(a, b) for a, b in both if a["outputs"] is not None and b["outputs"] is not None]


def paired(rows: Sequence[Row], release: str) -> Pairs:
    """The answers of production and of the shadow `release` to the same rows of a request."""
    shadows = {_row_id(row): row for row in rows if row["release"] == release}
    lives = {_row_id(row): row for row in rows if row["side"] != "shadow"}
    both = [one for one in shadows if one in lives]
    return Pairs(live=[lives[one] for one in both], candidate=[shadows[one] for one in both])


def _row_id(row: Row) -> tuple[str, str]:
    return row["request_id"], repr((row["keys"], row["request"]))


def _apart(pair: tuple[Row, Row]) -> float:
    return distance(pair[0]["outputs"], pair[1]["outputs"])
