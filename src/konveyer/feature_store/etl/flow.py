"""ETL as a durable flow: for each view compute, check, publish. A killed run resumes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl import runs
from konveyer.feature_store.etl.forgotten import forgotten_digests, without_forgotten
from konveyer.feature_store.etl.materialize import Written, publish, snapshots, write_offline
from konveyer.feature_store.etl.profile import profile_values
from konveyer.feature_store.etl.quality import check_values
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.codec import RecordCodec
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import active_state, compiled_view
from konveyer.feature_store.registry.state import RegistryState
from konveyer.pipeline.flow import Flow, Json, Payload, Steps, packed_error

NAME = "etl"


class EtlFailed(KonveyerError):
    """At least one view failed; the others were published."""

    code = "etl_failed"


class EtlStale(KonveyerError):
    """The definition changed between the plan of a run and its start."""

    code = "etl_plan_outdated"


class EtlPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does: `views` maps names to the versions that were planned."""

    run_id: str
    person: str
    as_of_us: int
    views: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtlServices:
    """What the flow works with."""

    catalog: Catalog
    engine: Engine
    offline: DeltaOfflineStore
    online: OnlineStore
    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    state: RegistryState
    view: FeatureView
    version: str
    compiled: CompiledView


def etl_flow(services: EtlServices) -> Flow:
    return Flow(NAME, partial(_run, services))


def _run(services: EtlServices, steps: Steps, payload: Payload) -> Json:
    """Each view stands by itself: one that fails does not keep the others from being published."""
    order = msgspec.convert(payload, EtlPayload)
    failed: dict[str, dict[str, Any]] = {}
    for name in order.views:
        try:
            table = steps.step(f"compute {name}", partial(_compute, services, order, name))
            steps.step(f"check {name}", partial(_check, services, order, name, table))
            steps.step(f"publish {name}", partial(_publish, services, order, name, table))
        except KonveyerError as error:
            failed[name] = packed_error(error)
            steps.step(f"fail {name}", partial(_fail, services, order, name, failed[name]))
    if failed:
        first = next(iter(failed.values()))
        raise EtlFailed(
            f"{len(failed)} of {len(order.views)} view(s) failed. {first['message']}",
            hint=first.get("hint"),
            detail=failed,
        )
    return {"run_id": order.run_id}


def _load(services: EtlServices, order: EtlPayload, name: str) -> _View:
    with services.catalog.reading() as session:
        state = active_state(session)
        compiled = compiled_view(session, name, order.views[name])
    view = state.view(name)
    version = order.views[name]
    if state.versions[Kind.VIEW, name] != version:
        raise EtlStale(
            f"Feature view '{name}' changed after this run was planned.",
            hint=f"run 'konveyer etl run {name}' again",
        )
    return _View(state=state, view=view, version=version, compiled=compiled)


def _compute(services: EtlServices, order: EtlPayload, name: str) -> Json:
    with services.catalog.transaction() as session:
        runs.begin(
            session,
            order.run_id,
            name,
            order.views[name],
            person=order.person,
            as_of_us=order.as_of_us,
        )
    loaded = _load(services, order, name)
    # Read after the run was noted: whoever is forgotten from now on finds the run and waits.
    with services.catalog.reading() as session:
        digests = forgotten_digests(session, loaded.view.entity)
    written = write_offline(
        loaded.state,
        name,
        loaded.version,
        without_forgotten(loaded.compiled, digests),
        engine=services.engine,
        offline=services.offline,
        root=services.root,
        until_us=order.as_of_us,
    )
    return msgspec.to_builtins(written)


def _check(services: EtlServices, order: EtlPayload, name: str, table: Json) -> None:
    """All values are checked before the first of them is published."""
    loaded, written = _load(services, order, name), msgspec.convert(table, Written)
    features = []
    for part in _snapshots(services, loaded, written, order):
        features.append(part.features)
        if loaded.view.is_sql:
            continue
        check_values(loaded.view, part.features)
    if loaded.view.is_sql:
        names = loaded.view.feature_names
        table = services.offline.open(written.ref)
        for bucket in range(written.ref.buckets):
            check_values(loaded.view, table.read(bucket, names).table)
    if features:
        profiles = profile_values(pa.concat_tables(features))
        with services.catalog.transaction() as session:
            runs.keep_profiles(session, order.run_id, name, profiles)


def _publish(services: EtlServices, order: EtlPayload, name: str, table: Json) -> None:
    loaded, written = _load(services, order, name), msgspec.convert(table, Written)
    codec = RecordCodec(loaded.compiled.columns)
    published = sum(
        publish(name, loaded.version, codec, part, services.online)
        for part in _snapshots(services, loaded, written, order)
    )
    with services.catalog.transaction() as session:
        runs.succeed(session, order.run_id, written.ref, rows=written.rows, published=published)
        audit.record(
            session,
            order.person,
            "computed",
            "view",
            name,
            run=order.run_id,
            rows=written.rows,
            published=published,
        )


def _snapshots(services: EtlServices, loaded: _View, written: Written, order: EtlPayload) -> Any:
    return snapshots(
        loaded.compiled,
        written.ref,
        engine=services.engine,
        offline=services.offline,
        as_of_us=order.as_of_us,
    )


def _fail(services: EtlServices, order: EtlPayload, name: str, error: dict[str, Any]) -> None:
    with services.catalog.transaction() as session:
        runs.fail(session, order.run_id, name, error)
        audit.record(session, order.person, "failed", "view", name, run=order.run_id, **error)
