"""Production's prediction log, for gates that look into it once, or again and again."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from itertools import chain

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from konveyer.bundle.release_policy import MOST_WATCHED_ROWS
from konveyer.core.clock import now_us
from konveyer.core.storage import Storage
from konveyer.execution.releases.environments import PROD
from konveyer.execution.releases.observed import Row, Url
from konveyer.execution.serving.prediction_files import newest_first, read_columns
from konveyer.execution.serving.prediction_reader import LONGEST_US
from konveyer.execution.serving.segments import OPEN, hour_folder, shipped_folder

# So many rows of each release on a side are judged.
MOST_ROWS = MOST_WATCHED_ROWS
# So many answers are kept in case that a copy of their request is still to come.
MOST_ANSWERS = 10 * MOST_ROWS
# Requests are replayed that were answered so lately, and are looked for so long.
REPLAYED_DAYS, LOOKED_FOR_S = 7, 120.0
_DAY_US = 86_400_000_000
# What a node could not send to a bucket for longer than this is not waited for.
_LATE_US = 3_600_000_000
_COLUMNS = ("request_id", "bundle", "release", "side", "status", "error", "latency_us")
_LISTS = ("keys", "request", "outputs")
_REPLAYED = (*_LISTS, "given", "features")
_IS_COPY = pc.field("side") == "shadow"


class Followed:
    """The rows of a URL since an instant, for those who look again and again.

    A file that nobody writes any more is read once, one that is still written at every look. Each
    look lists the folder of the hour, and of the one before.
    """

    def __init__(self, storage: Storage, url: Url, since_us: int, lists: Sequence[str]) -> None:
        self._storage, self._lists = storage, lists
        self._oldest_us, self._looked_us = since_us - LONGEST_US, 0
        self._read: set[str] = set()
        self._wanted = (
            (pc.field("application") == url.application)
            & (pc.field("api_version") == url.api_version)
            & (pc.field("at") >= pa.scalar(since_us, pa.timestamp("us", "UTC")))
        )

    def new(self) -> Iterator[tuple[pa.Table, bool]]:
        """The rows of a file, oldest first, from the newest file back; and whether it is whole.

        Those of a file that is not whole come again with the next look. Lists are still JSON.
        """
        began_us, there = now_us(), set()
        since = hour_folder(PROD, max(self._oldest_us, self._looked_us - _LATE_US))
        for name in newest_first(self._storage, shipped_folder(PROD), since):
            stem = name.rpartition(".")[0]
            if int(name.rpartition("/")[2].partition("-")[0]) < self._oldest_us:
                continue
            is_whole = not name.endswith(OPEN)
            if stem not in self._read:
                yield self._rows_of(name), is_whole
            if is_whole:
                there.add(stem)
        self._read, self._looked_us = there, began_us

    def _rows_of(self, name: str) -> pa.Table:
        columns = ["application", "api_version", "at", *_COLUMNS, *self._lists]
        table = read_columns(self._storage, name, columns).filter(self._wanted)
        at_us = table.column("at").cast(pa.int64())
        return table.select([*_COLUMNS, *self._lists]).append_column("at_us", at_us)


class _Newest:
    """The newest rows of tables that are put in from the newest one back."""

    def __init__(self, most: int) -> None:
        self._most, self._room = most, most
        self._tables: list[pa.Table] = []

    def put(self, table: pa.Table) -> pa.Table:
        """What there was still room for."""
        taken = _last(table, self._room)
        if len(taken):
            self._tables.append(taken)
            self._room -= len(taken)
        return taken

    def after(self, older: Iterable[pa.Table]) -> list[pa.Table]:
        """These and older ones, the oldest first, in one table; none without any rows."""
        tables = [*older, *reversed(self._tables)]
        return [_last(pa.concat_tables(tables), self._most).combine_chunks()] if tables else []


class SidesLog:
    """What releases answered at a URL since an instant, for those who look again and again."""

    def __init__(self, storage: Storage, url: Url, since_us: int) -> None:
        self._log = Followed(storage, url, since_us, _LISTS)
        self._kept: dict[tuple[str, str], list[pa.Table]] = defaultdict(list)

    def rows(self) -> list[Row]:
        """Until now: at most the newest `MOST_ROWS` of each release on a side."""
        whole: dict[tuple[str, str], _Newest] = defaultdict(lambda: _Newest(MOST_ROWS))
        written: dict[tuple[str, str], _Newest] = defaultdict(lambda: _Newest(MOST_ROWS))
        for table, is_whole in self._log.new():
            for pair in table.group_by(["release", "side"]).aggregate([]).to_pylist():
                release, side = pair["release"], pair["side"]
                is_its = (pc.field("release") == release) & (pc.field("side") == side)
                (whole if is_whole else written)[release, side].put(table.filter(is_its))
        for key, newest in whole.items():
            self._kept[key] = newest.after(self._kept[key])
        sides = [
            written[key].after(self._kept[key]) for key in dict.fromkeys([*self._kept, *written])
        ]
        return [row for table in chain(*sides) for row in _decoded(table, _LISTS)]


class MirroredLog:
    """What a shadow was asked since an instant, for those who look again and again.

    A node logs its answer before it asks the shadow: the answer is in the same file as the copy, or
    in an older one, which may have been read long before.
    """

    def __init__(self, storage: Storage, url: Url, since_us: int, release: str) -> None:
        self._log = Followed(storage, url, since_us, _LISTS)
        self._is_its = _IS_COPY & (pc.field("release") == release)
        self._copies: list[pa.Table] = []
        self._answers: list[pa.Table] = []
        self._others: list[pa.Table] = []

    def rows(self) -> list[Row]:
        """Until now: at most the newest `MOST_ROWS` copies, and those requests as production
        answered them, however many others it answered meanwhile.
        """
        copies, answers, others = _Newest(MOST_ROWS), _Newest(MOST_ANSWERS), _Newest(MOST_ANSWERS)
        written: list[pa.Table] = []
        asked = _requests(self._copies)
        for table, is_whole in self._log.new():
            if not is_whole:
                written.insert(0, table)
                asked |= _requests([table.filter(self._is_its)])
                continue
            asked |= _requests([copies.put(table.filter(self._is_its))])
            answered = table.filter(~_IS_COPY)
            answers.put(answered.filter(_of(asked)))
            others.put(answered.filter(~_of(asked)))
        late = [table.filter(_of(asked)) for table in self._others]
        self._copies = copies.after(self._copies)
        self._answers = answers.after([*self._answers, *late])
        self._others = others.after([table.filter(~_of(asked)) for table in self._others])
        mirrored = [*self._copies, *(table.filter(self._is_its) for table in written)]
        mirrored = [_last(pa.concat_tables(mirrored), MOST_ROWS)] if mirrored else []
        answered = [*self._answers, *(table.filter(~_IS_COPY) for table in written)]
        is_asked = _of(_requests(mirrored))
        tables = [*mirrored, *(table.filter(is_asked) for table in answered)]
        return [row for table in tables for row in _decoded(table, _LISTS)]


def answered_rows(storage: Storage, url: Url, most: int) -> list[Row]:
    """Rows that production answered to callers lately, from the newest file back.

    Of the last `REPLAYED_DAYS`, as far as they are read in `LOOKED_FOR_S`.
    """
    found: list[Row] = []
    until_s = time.monotonic() + LOOKED_FOR_S
    lately = Followed(storage, url, now_us() - REPLAYED_DAYS * _DAY_US, _REPLAYED)
    for table, _ in lately.new():
        answered = table.filter(~_IS_COPY & (pc.field("status") == int(HTTPStatus.OK)))
        found += _decoded(_last(answered, most - len(found)), _REPLAYED)[::-1]
        if len(found) >= most or time.monotonic() > until_s:
            break
    return found


def _last(table: pa.Table, most: int) -> pa.Table:
    return table.slice(max(0, len(table) - most))


def _requests(tables: Iterable[pa.Table]) -> set[str]:
    return {one for table in tables for one in table.column("request_id").to_pylist()}


def _of(requests: set[str]) -> pc.Expression:
    """That a row is of one of these requests."""
    return pc.field("request_id").isin(pa.array([*requests], pa.string()))


def _decoded(table: pa.Table, lists: Sequence[str]) -> list[Row]:
    return [
        row | {name: msgspec.json.decode(row[name]) for name in lists} for row in table.to_pylist()
    ]
