"""Moments and numbers at the ends of their types, and what every read must give of them."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source
from konveyer.core.clock import format_us, parse_instant
from konveyer.feature_store.datamart.published import published_features
from konveyer.feature_store.definitions.aggregation import AggregationFunction
from konveyer.feature_store.definitions.definition import Definition
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from tests.unit.etl.store import Store

DAY_US = 86_400_000_000
INSTANT = pa.timestamp("us", tz="UTC")
LAST = "9999-12-31T23:59:59.999999Z"
# The calendar changed in 1582, many zones did before 1900, and 1970 is where numbers change sign.
MOMENTS = tuple(
    parse_instant(text)
    for text in (
        "0001-01-01T00:00:00.000001Z",
        "1582-10-10T12:00:00Z",
        "1883-11-18T17:00:00.5Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2026-03-29T01:00:00.000001Z",
        LAST,
    )
)
# A double holds none of them but the first and the last.
NUMBERS = (2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63) + 1, -(2**63))
CLIENTS = NUMBERS
SEEN = {"client": "int64", "happened": "timestamp", "seen": "timestamp", "number": "int64"}
FUNCTIONS: tuple[AggregationFunction, ...] = ("first", "last", "min", "max")


def definitions(source: Source) -> tuple[Definition, ...]:
    return (
        Entity(name="client", join_keys=(JoinKey("client", "int64"),)),
        source,
        FeatureView(
            name="newest",
            entity="client",
            sql=f"SELECT client, happened AS event_time, seen, number FROM {source.name}",
            features=(
                Feature(name="seen", dtype="timestamp"),
                Feature(name="number", dtype="int64"),
            ),
            accuracy="exact",
        ),
        FeatureView(
            name="windows",
            entity="client",
            source=source.name,
            aggregations=(
                *(
                    Aggregation(column=column, function=function, over="unbounded")
                    for column in ("seen", "number")
                    for function in FUNCTIONS
                ),
                Aggregation(function="count", over="1d", name="day"),
            ),
            accuracy="exact",
        ),
        FeatureService(name="scoring", features=("newest", "windows")),
    )


def rows() -> list[tuple[int, int, int, int]]:
    """Each client once at each moment: what was seen then, and a number."""
    return [
        (client, at, MOMENTS[-1 - place], NUMBERS[(place + shift) % len(NUMBERS)])
        for shift, client in enumerate(CLIENTS)
        for place, at in enumerate(MOMENTS)
    ]


def write_parquet(file: Path) -> None:
    columns = [list(column) for column in zip(*rows(), strict=True)]
    times = [pa.array(column).cast(INSTANT) for column in columns[1:3]]
    table = pa.table([columns[0], *times, columns[3]], names=list(SEEN))
    pq.write_table(table, file)


def write_csv(file: Path) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(SEEN)
        writer.writerows((c, format_us(at), format_us(seen), n) for c, at, seen, n in rows())


def expected(client: int, at_us: int) -> tuple[int, ...]:
    """The features as they were at a moment; instants are microseconds."""
    known = [row for row in rows() if row[0] == client and row[1] <= at_us]
    seen, numbers = [row[2] for row in known], [row[3] for row in known]
    windows = [
        value
        for values in (seen, numbers)
        for value in (values[0], values[-1], min(values), max(values))
    ]
    return seen[-1], numbers[-1], *windows, sum(row[1] > at_us - DAY_US for row in known)


def assert_all_come_back(store: Store) -> None:
    """From a training set, offline as published, and online; `store` has the definitions."""
    store.etl()
    asked = [(client, at) for client, at, *_ in rows()]
    labels = pa.table(
        {
            "client": [client for client, _ in asked],
            "at": pa.array([at for _, at in asked]).cast(INSTANT),
        }
    )
    trained = store.training_set(labels).table.drop_columns(["client", "at"])
    assert _in_micros(trained) == [expected(client, at) for client, at in asked]

    newest = [expected(client, MOMENTS[-1]) for client in CLIENTS]
    keys = [(client,) for client in CLIENTS]
    services = store.services
    with services.catalog.reading() as session:
        service = resolve_service(session, active_state(session), "scoring")
    published = published_features(
        services.catalog, services.engine, services.offline, service, keys, [()] * len(keys)
    )
    assert published == newest
    assert store.online(*keys) == newest


def _in_micros(table: pa.Table) -> list[tuple[Any, ...]]:
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in table.columns
    ]
    return list(zip(*(column.to_pylist() for column in columns), strict=True))
