"""Reading the prediction log: for gates and for people, never in a node."""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter
from typing import Any

import msgspec

from konveyer.bundle.store import BundleStore
from konveyer.core.clock import to_us
from konveyer.core.storage import Storage
from konveyer.execution.serving.prediction_files import LISTS, newest_first, read_file
from konveyer.execution.serving.segments import shipped_folder

_at = itemgetter("at")
# Longer than a process writes to one file.
LONGEST_US = 180_000_000


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
    another machine has not shipped yet is not there. Files of several processes stand beside one
    another: only those of one process are in order.
    """
    for name in newest_first(storage, shipped_folder(environment)):
        for row in read_file(storage, name, request_prefix):
            yield row | {name: msgspec.json.decode(row[name]) for name in LISTS}


def newest_predictions(
    storage: Storage, environment: str, bundles: BundleStore, *, request_prefix: str, limit: int
) -> list[LoggedPrediction]:
    """At most `limit` answers, newest first, with the names that their bundles give the values."""
    rows: list[dict[str, Any]] = []
    for name in newest_first(storage, shipped_folder(environment)):
        # A file that began so long before the rows that are found holds none that are newer.
        began_us = int(name.rpartition("/")[2].partition("-")[0])
        if len(rows) >= limit and began_us < to_us(rows[-1]["at"]) - LONGEST_US:
            break
        # A file of a bucket has rows of several processes, those of one behind those of another.
        newest = nlargest(limit, read_file(storage, name, request_prefix), key=_at)
        rows += [row | {name: msgspec.json.decode(row[name]) for name in LISTS} for row in newest]
        rows = nlargest(limit, rows, key=_at)
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
