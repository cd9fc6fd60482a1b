"""Batch scoring as a durable flow: each period a step that replaces its rows at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from konveyer.bundle.manifest import ISOLATED
from konveyer.bundle.store import Bundle, BundleStore
from konveyer.catalog import audit
from konveyer.catalog.outages import lasting
from konveyer.catalog.session import Catalog
from konveyer.core.errors import Conflict, KonveyerError
from konveyer.execution.batch import runs
from konveyer.execution.batch.frame import write_entities, write_given
from konveyer.execution.batch.order import NAME, BatchOrder, Period
from konveyer.execution.batch.output import ScoreTable, table_of
from konveyer.execution.batch.score import ScoreFile
from konveyer.execution.releases.gates.answers import answering
from konveyer.execution.releases.machine import ENDS
from konveyer.execution.releases.records import release_row
from konveyer.feature_store.datamart.label_files import label_files
from konveyer.feature_store.datamart.large import Meaning, write_large
from konveyer.feature_store.datamart.pinned import pin_views
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.offline.delta import DeltaOfflineStore, PartFile
from konveyer.feature_store.sources.staging import staging_folder
from konveyer.pipeline.flow import Flow, Json, Payload, Steps, packed_error

# A period in which the catalog cannot be used so often fails.
_TRIES = 3


class BatchFailed(KonveyerError):
    """At least one period failed; the others were scored."""

    code = "batch_failed"


class ReleaseRolledBack(Conflict):
    """The release that a run scores with was rolled back, or failed, meanwhile."""

    code = "release_rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchServices:
    """What the flow works with. Every worker of the engine sees `scores` and `staging`.

    Isolated models run in `environments`, which are built there when they are missing, and do not
    see the variables `secrets`.
    """

    catalog: Catalog
    bundles: BundleStore
    engine: Engine
    offline: DeltaOfflineStore
    scores: Path
    staging: Path
    environments: Path
    secrets: frozenset[str] = frozenset()


def batch_flow(services: BatchServices) -> Flow:
    return Flow(NAME, partial(_run, services))


def _run(services: BatchServices, steps: Steps, payload: Payload) -> Json:
    """Each period stands by itself: one that fails keeps no other from being scored."""
    order = msgspec.convert(payload, BatchOrder)
    failed: dict[str, dict[str, Any]] = {}
    for period in order.periods:
        try:
            work = partial(_score, services, order, period)
            name = f"score {period.name}"
            steps.step(name, partial(lasting, services.catalog, work, tries=_TRIES))
        except KonveyerError as error:
            failed[period.name] = packed_error(error)
            packed = failed[period.name]
            fail = partial(_fail, services, order, period, packed)
            steps.step(f"fail {period.name}", partial(lasting, services.catalog, fail))
    if failed:
        first = next(iter(failed.values()))
        raise BatchFailed(
            f"{len(failed)} of {len(order.periods)} period(s) of {order.model} failed; the first: "
            f"{first['message']}",
            hint=first.get("hint"),
            detail={"periods": failed},
        )
    return {"run_id": order.run_id, "periods": len(order.periods)}


def _score(services: BatchServices, order: BatchOrder, period: Period) -> int:
    """Score one period. Run again after a kill it starts over, and gives the same rows."""
    with services.catalog.transaction() as session:
        runs.begin(session, order, period)
    _refuse_rolled_back(services, order)
    bundle = services.bundles.open(order.digest)
    table = table_of(services.scores, order.application, order.api_version)
    table.check(bundle.manifest)
    with staging_folder(services.staging) as staging:
        timestamp = _write_features(services, order, period, bundle, staging)
        version = _write_scores(services, order, period, bundle, table, staging, timestamp)
    with services.catalog.transaction() as session:
        runs.succeed(session, order, period, table_version=version)
        audit.record(
            session,
            order.person,
            "scored",
            "batch",
            order.model,
            run=order.run_id,
            period=period.name,
            release=order.release,
            table_version=version,
        )
    return version


def _refuse_rolled_back(services: BatchServices, order: BatchOrder) -> None:
    """What was replaced by a later release may end what it began; what was taken back must not put
    its scores in place of others.
    """
    with services.catalog.reading() as session:
        state = release_row(session, order.release).state
    if state in ENDS:
        raise ReleaseRolledBack(
            f"Release {order.release} is in '{state}': its scores are not wanted any more.",
            hint=f"score with what production serves now: konveyer batch run {order.model}",
        )


def _write_features(
    services: BatchServices, order: BatchOrder, period: Period, bundle: Bundle, staging: Path
) -> str:
    """Whom to score, with features, as files in `staging`; gives the name of the time column."""
    service, frame = bundle.manifest.service, staging / "frame"
    with services.catalog.reading() as session:
        views = pin_views(session, services.offline, service)
    if order.given is None:
        timestamp = write_entities(
            views, service, period.at_us, engine=services.engine, folder=frame
        )
    else:
        timestamp = write_given(order.given, service, period.at_us, folder=frame)
    labels = label_files(frame)
    with services.catalog.transaction() as session:
        runs.progressed(session, order, period, 0, labels.num_rows)
    if labels.num_rows:
        meaning = Meaning(service=service, timestamp=timestamp, label=None, columns={})
        write_large(labels, meaning, views, engine=services.engine, folder=staging / "features")
    return timestamp


def _write_scores(
    services: BatchServices,
    order: BatchOrder,
    period: Period,
    bundle: Bundle,
    table: ScoreTable,
    staging: Path,
    timestamp: str,
) -> int:
    with _draft_beside(table.folder) as draft:
        job = ScoreFile(bundle=bundle, release=order.release, timestamp=timestamp, folder=draft)
        files, rows = [], 0
        asked = sorted((staging / "features").glob("*.parquet"))
        total = label_files(staging / "frame").num_rows
        for scored in _scored(services, job, asked):
            files.append(scored)
            rows += scored.rows
            with services.catalog.transaction() as session:
                runs.progressed(session, order, period, rows, total)
        _refuse_rolled_back(services, order)
        return table.replace(bundle.manifest, period.name, files)


def _scored(services: BatchServices, job: ScoreFile, asked: Sequence[Path]) -> Iterator[PartFile]:
    """By the engine; a model that needs an environment of its own by one process of that, here."""
    if job.bundle.manifest.model.form != ISOLATED:
        yield from services.engine.map(job, asked)
        return
    with answering(job.bundle, services.environments, services.secrets) as answer:
        for file in asked:
            yield job.scored(file, answer)


@contextmanager
def _draft_beside(folder: Path) -> Iterator[Path]:
    """A folder on the disk of the table, where files can be moved from into it."""
    with staging_folder(folder.parent / ".drafts") as draft:
        yield draft


def _fail(
    services: BatchServices, order: BatchOrder, period: Period, error: dict[str, Any]
) -> None:
    with services.catalog.transaction() as session:
        runs.begin(session, order, period)  # it may have failed before that
        runs.fail(session, order, period, error)
        audit.record(
            session,
            order.person,
            "failed to score",
            "batch",
            order.model,
            run=order.run_id,
            period=period.name,
            error=error["message"],
        )
