"""What production's prediction log says of the releases at one URL."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from typing import Any

import msgspec

from konveyer.core.clock import to_us
from konveyer.core.storage import Storage
from konveyer.execution.releases.beside import Seen
from konveyer.execution.releases.gates.answers import distance
from konveyer.execution.releases.live import PROD
from konveyer.execution.serving.prediction_files import newest_first, read_file
from konveyer.execution.serving.prediction_reader import LONGEST_US
from konveyer.execution.serving.segments import shipped_folder

Row = dict[str, Any]
# So many rows of a side are looked at, and so many of all in the search for them.
MOST_ROWS = 10_000
_MOST_LOOKED_AT = 500_000
_READ = ("keys", "request", "given", "features", "outputs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An application's version."""

    application: str
    api_version: int


def rows_since(storage: Storage, url: Url, since_us: int) -> list[Row]:
    """The rows of the URL since an instant, at most `MOST_ROWS` of each release and side."""
    found: list[Row] = []
    taken: Counter[tuple[str, str]] = Counter()
    for row in islice(_logged(storage, since_us), _MOST_LOOKED_AT):
        side = row["release"], row["side"]
        if _is_of(row, url) and taken[side] < MOST_ROWS:
            taken[side] += 1
            found.append(_read(row))
    return found


def answered_rows(storage: Storage, url: Url, most: int) -> list[Row]:
    """Rows that production answered to callers lately."""
    rows = islice(_logged(storage, 0), _MOST_LOOKED_AT)
    answered = (row for row in rows if _is_of(row, url) and _is_answer(row))
    return [_read(row) for row in islice(answered, most)]


def _logged(storage: Storage, since_us: int) -> Iterator[Row]:
    """As they are kept, from the newest file back; lists are still JSON."""
    for name in newest_first(storage, shipped_folder(PROD)):
        began_us = int(name.rpartition("/")[2].partition("-")[0])
        if began_us < since_us - LONGEST_US:
            return
        for row in read_file(storage, name, ""):
            if to_us(row["at"]) >= since_us:
                yield row


def _read(row: Row) -> Row:
    return row | {name: msgspec.json.decode(row[name]) for name in _READ}


def _is_of(row: Row, url: Url) -> bool:
    return (row["application"], row["api_version"]) == (url.application, url.api_version)


def _is_answer(row: Row) -> bool:
    is_of_callers = row["side"] != "shadow" and row["keys"] != "null"
    return bool(is_of_callers and row["status"] == HTTPStatus.OK)


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
