"""Synthetic data with a fixed seed: the Parquet files that every side of a benchmark reads.

Rows stand in the order of time, as events arrive. No two rows of a client share a moment, so the
newest row is never in doubt; moments are whole hours, so labels meet rows at the very edge of a
window. Amounts are whole quarters: sums of them are exact in any order, and answers can be compared
without a tolerance.

    python -m benchmarks.features.data DATASET FOLDER [--quick]
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

HOUR_US = 3_600_000_000
FIRST_HOUR = 455_832  # 1 January 2022
VIEWS = ("accounts", "cards", "loans")
INSTANT = pa.timestamp("us", tz="UTC")
ROW_GROUP = 250_000
SMALL = 50  # a quick run has this many times fewer rows and clients
Ints = npt.NDArray[np.int64]


def point_in_time(random: np.random.Generator, small: int) -> Iterator[tuple[str, pa.Table]]:
    """500k labels and three views of 2M rows: 20 of each client in three years.

    A fifth of the labels has no row of the last 90 days in a view; half of them, in some view.
    """
    clients = 100_000 // small
    for view in VIEWS:
        yield view, _view_rows(view, random, clients, rows=2_000_000 // small, days=1_095)
    yield "labels", _labels(random, clients, rows=500_000 // small, days=1_095)


def windows(
    random: np.random.Generator, small: int, *, events_per_client: int
) -> Iterator[tuple[str, pa.Table]]:
    """200k labels against 5M events of a year."""
    clients = 5_000_000 // events_per_client // small
    yield "events", _events(random, clients, rows=5_000_000 // small, days=365)
    yield "labels", _labels(random, clients, rows=200_000 // small, days=365)


def growth(
    random: np.random.Generator, small: int, *, times: int
) -> Iterator[tuple[str, pa.Table]]:
    """The same clients and as many labels, over a history that is `times` as long."""
    clients, days = 20_000 // small, 90 * times
    yield "events", _events(random, clients, rows=1_000_000 * times // small, days=days)
    yield "labels", _labels(random, clients, rows=100_000 // small, days=days)


def online(random: np.random.Generator, small: int) -> Iterator[tuple[str, pa.Table]]:
    """50k clients, each with about four rows in every view, and the order to ask for them in."""
    clients = 50_000 // small
    for view in VIEWS:
        yield view, _view_rows(view, random, clients, rows=4 * clients, days=365)
    yield "requests", pa.table({"client_id": random.permutation(clients)})


DATASETS: dict[str, Callable[[np.random.Generator, int], Iterator[tuple[str, pa.Table]]]] = {
    "point-in-time": point_in_time,
    "windows-dense": lambda random, small: windows(random, small, events_per_client=1_000),
    "windows-sparse": lambda random, small: windows(random, small, events_per_client=25),
    "growth-1x": lambda random, small: growth(random, small, times=1),
    "growth-2x": lambda random, small: growth(random, small, times=2),
    "growth-4x": lambda random, small: growth(random, small, times=4),
    "growth-8x": lambda random, small: growth(random, small, times=8),
    "online": online,
}


def _view_rows(
    view: str, random: np.random.Generator, clients: int, *, rows: int, days: int
) -> pa.Table:
    """Five features; one of them is null in one row of twenty."""
    client, at = _moments(random, clients, rows, days)
    order = np.argsort(at)
    cities = pa.array(["Bergen", "Oslo", "Rome", "Turin"])
    unknown = random.random(rows) < 0.05
    return pa.table(
        {
            "client_id": client[order],
            "event_time": _instants(at[order]),
            f"{view}_balance": _quarters(random, rows),
            f"{view}_limit": _quarters(random, rows),
            f"{view}_score": pa.array(random.random(rows), mask=unknown),
            f"{view}_visits": random.integers(0, 1_000, rows),
            f"{view}_city": cities.take(pa.array(random.integers(0, len(cities), rows))),
        }
    )


def _events(random: np.random.Generator, clients: int, *, rows: int, days: int) -> pa.Table:
    client, at = _moments(random, clients, rows, days)
    order = np.argsort(at)
    return pa.table(
        {
            "client_id": client[order],
            "event_time": _instants(at[order]),
            "amount": _quarters(random, rows),
        }
    )


def _labels(random: np.random.Generator, clients: int, *, rows: int, days: int) -> pa.Table:
    """In no order of time or client."""
    client, at = _moments(random, clients, rows, days)
    order = random.permutation(rows)
    return pa.table({"client_id": client[order], "label_timestamp": _instants(at[order])})


def _moments(random: np.random.Generator, clients: int, rows: int, days: int) -> tuple[Ints, Ints]:
    """Different pairs of a client and an hour."""
    hours = days * 24
    pairs = random.choice(clients * hours, rows, replace=False, shuffle=False)
    return pairs // hours, pairs % hours


def _instants(at_hour: Ints) -> pa.Array:
    return pa.array((FIRST_HOUR + at_hour) * HOUR_US).cast(INSTANT)


def _quarters(random: np.random.Generator, rows: int) -> npt.NDArray[np.float64]:
    return random.integers(-400, 40_000, rows) / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tables = DATASETS[options.dataset](np.random.default_rng(7), SMALL if options.quick else 1)
    for name, table in tables:
        pq.write_table(table, options.folder / f"{name}.parquet", row_group_size=ROW_GROUP)


if __name__ == "__main__":
    main()
