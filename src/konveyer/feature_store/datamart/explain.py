"""What building a training set reads: the estimate before, and the truth after."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from konveyer.feature_store.datamart.join import BucketRead, places_by_bucket
from konveyer.feature_store.datamart.labels import Labels
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCost:
    """What is read of one view.

    `rows` and `size_bytes` are estimated from the table's log: all rows of the buckets that the
    labels fall into, and of their files the share of the columns. `which_buckets` are the numbers
    of these buckets (`0-2, 5`), None when they are all. The `read_*` values are what it was when
    the training set was built; None before.
    """

    view: str
    table_version: int
    method: str
    columns: tuple[str, ...]
    of_columns: int
    buckets: int
    of_buckets: int
    which_buckets: str | None
    files: int
    rows: int
    size_bytes: int
    read_rows: int | None = None
    read_bytes: int | None = None
    read_s: float | None = None


def buckets_hit(labels: Labels, view: PinnedView, engine: Engine) -> list[int]:
    """The buckets of the view's table that labels fall into."""
    spine = labels.spine.select([key.name for key in view.keys])
    places = places_by_bucket(spine, view.keys, view.table.ref.buckets, engine)
    return [bucket for bucket, rows in enumerate(places) if len(rows)]


def estimate(view: PinnedView, hit: Sequence[int]) -> ViewCost:
    """Of reading the buckets `hit`. Reads the log of the table and nothing of its data."""
    table = view.table
    files = [file for bucket in hit for file in table.files_of(bucket)]
    share = len(view.columns) / len(table.schema)
    return ViewCost(
        view=table.ref.view,
        table_version=table.ref.table_version,
        method=_method(view),
        columns=view.columns,
        of_columns=len(table.schema),
        buckets=len(hit),
        of_buckets=table.ref.buckets,
        which_buckets=_ranges(hit) if len(hit) < table.ref.buckets else None,
        files=len(files),
        rows=sum(file.rows for file in files),
        size_bytes=round(share * sum(file.size_bytes for file in files)),
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, those that follow each other as one.

    >>> _ranges([0, 1, 2, 5])
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(str(end) for end in run) for run in runs)


def _method(view: PinnedView) -> str:
    known = "created_time" in view.columns and view.plan.as_known
    if not view.plan.windowed:
        return "point-in-time join, as known then" if known else "point-in-time join"
    return "windows, each row as known then" if known else "windows over sorted rows"


class Tally:
    """Adds up what is read of each view."""

    def __init__(self) -> None:
        self._read: dict[str, list[BucketRead]] = defaultdict(list)

    def __call__(self, read: BucketRead) -> None:
        self._read[read.view].append(read)

    def of(self, cost: ViewCost) -> ViewCost:
        """The estimate with the truth beside it; seconds are those of all workers together."""
        reads = self._read[cost.view]
        return replace(
            cost,
            read_rows=sum(read.rows for read in reads),
            read_bytes=sum(read.size_bytes for read in reads),
            read_s=sum(read.seconds for read in reads),
        )
