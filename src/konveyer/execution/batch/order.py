"""What a run of batch scoring does, as it is handed to a worker."""

import msgspec

from konveyer.core.clock import format_us
from konveyer.pipeline.flow import Run

NAME = "batch"
# How the name of a period begins that is the rows of a table.
OF_A_TABLE = "table "


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the table of scores that are replaced together. `at_us` is their event time, or of
    rows with times of their own when they were asked for.
    """

    name: str
    at_us: int


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """Rows to score: a Parquet file, a folder of them, or a Delta table, by absolute path.

    It has the join keys, under the names of `columns` where that has them, and request fields.
    Features are as of the column `timestamp`, or of the period's time without one.
    """

    path: str
    timestamp: str | None = None
    columns: dict[str, str] = {}


class BatchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Score periods with one bundle: every entity at each, or the rows that are `given` once."""

    run_id: str
    person: str
    application: str
    api_version: int
    release: str
    digest: str
    periods: tuple[Period, ...]
    given: Given | None = None

    @property
    def run(self) -> Run:
        return Run(flow=NAME, id=self.run_id, payload=msgspec.to_builtins(self))

    @property
    def model(self) -> str:
        return f"{self.application}/v{self.api_version}"


def period_at(at_us: int) -> Period:
    """
    >>> period_at(1_000_000).name
    '1970-01-01T00:00:01Z'
    """
    return Period(name=format_us(at_us), at_us=at_us)


def period_of(given: Given, at_us: int) -> Period:
    """Rows from the same place replace each other, whatever is in it and whenever that was asked.

    >>> period_of(Given(path="/data/list.parquet"), 0).name
    'table /data/list.parquet'
    """
    return Period(name=f"{OF_A_TABLE}{given.path}", at_us=at_us)
