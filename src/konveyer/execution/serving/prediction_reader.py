"""Reading the prediction log: for gates and for people, never in a node."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.bundle.store import BundleStore
from konveyer.core.clock import to_us
from konveyer.core.storage import ObjectMissing, Storage
from konveyer.execution.serving.prediction_log import LISTS, SCHEMA, shipped_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPrediction:
    """One answer: for whom, from which features, by which bundle. Of a failure what is known."""

    request_id: str
    at_us: int
    application: str
    api_version: int
    bundle: str
    release: str
    side: str
    caller: str
    status: int
    error: str | None
    keys: dict[str, Any]
    request: dict[str, Any]
    given: list[str]
    fallbacks: list[str]
    features: dict[str, Any]
    outputs: list[Any] | None
    prediction: float | None
    latency_us: int


def read_predictions(
    storage: Storage, environment: str, *, request_prefix: str = ""
) -> Iterator[dict[str, Any]]:
    """The logged rows of requests whose id begins with `request_prefix`, newest file first.

    Those of failed requests too: their `status` is not 200. Lists are lists again. What a node of
    another machine has not shipped yet is not there.
    """
    condition = pc.starts_with(pc.field("request_id"), request_prefix)
    for name in _newest_first(storage, shipped_folder(environment)):
        try:
            file = pq.read_table(pa.BufferReader(storage.read(name)), schema=SCHEMA)
        except ObjectMissing:
            continue
        for row in file.filter(condition).to_pylist()[::-1]:
            yield row | {name: msgspec.json.decode(row[name]) for name in LISTS}


def _newest_first(storage: Storage, folder: str) -> Iterator[str]:
    """The files of a folder by name, then those of its days: names begin with their time."""
    found = sorted(storage.listed(folder), key=lambda one: one.name, reverse=True)
    yield from (one.name for one in found if one.name.endswith(".parquet"))
    for day in (one.name for one in found if one.is_folder):
        yield from _newest_first(storage, day)


def newest_predictions(
    storage: Storage, environment: str, bundles: BundleStore, *, request_prefix: str, limit: int
) -> list[LoggedPrediction]:
    """At most `limit` answers, newest first, with the names that their bundles give the values."""
    found = read_predictions(storage, environment, request_prefix=request_prefix)
    rows = list(islice(found, limit))
    services = {
        digest: bundles.open(digest).manifest.service for digest in {row["bundle"] for row in rows}
    }
    return [
        LoggedPrediction(
            request_id=row["request_id"],
            at_us=to_us(row["at"]),
            application=row["application"],
            api_version=row["api_version"],
            bundle=row["bundle"],
            release=row["release"],
            side=row["side"],
            caller=row["caller"],
            status=row["status"],
            error=row["error"],
            keys=_named(services[row["bundle"]].keys, row["keys"]),
            request=_named(services[row["bundle"]].request, row["request"]),
            given=row["given"],
            fallbacks=row["fallbacks"],
            features=_named(services[row["bundle"]].columns, row["features"]),
            outputs=row["outputs"],
            prediction=row["prediction"],
            latency_us=row["latency_us"],
        )
        for row in rows
    ]


def _named(columns: tuple[Any, ...], values: list[Any] | None) -> dict[str, Any]:
    return dict(zip((column.name for column in columns), values or (), strict=values is not None))
