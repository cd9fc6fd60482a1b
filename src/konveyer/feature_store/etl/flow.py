"""ETL as a durable flow: for each view compute, check, publish. A killed run resumes."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from konveyer.catalog import audit
from konveyer.catalog.session import Catalog
from konveyer.core.errors import KonveyerError
from konveyer.core.progress import Progress, counted
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.etl import runs
from konveyer.feature_store.etl.forgotten import forgotten_in, without_forgotten
from konveyer.feature_store.etl.landing import Held, Landing
from konveyer.feature_store.etl.materialize import (
    PublishedTable,
    Snapshot,
    Written,
    checked,
    encoded_keys,
    publish,
    snapshots,
    stale_keys,
    withdraw,
    write_offline,
)
from konveyer.feature_store.etl.profile import profile_values
from konveyer.feature_store.etl.runs import PutTable
from konveyer.feature_store.etl.stages import NotedStages
from konveyer.feature_store.kernel.errors import naming_view
from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.offline.table_version import OfflineTableUnreadable, TableRef
from konveyer.feature_store.online.base import OnlineStore
from konveyer.feature_store.online.codec import RecordCodec
from konveyer.feature_store.registry.check import SourceForm
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.landing import pushed_sources
from konveyer.feature_store.registry.lookup import compiled_view, source_forms, state_at
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.sources.kind import Places
from konveyer.feature_store.sources.pushes import last_arrived, listed_segments
from konveyer.feature_store.sources.segments import ListedSegment
from konveyer.pipeline.flow import Flow, Json, Payload, Run, Steps, packed_error

NAME = "etl"
_log = logging.getLogger(__name__)
_MOST_PROFILED = 1_000_000
# A step that ends so many processes, for want of memory or in a library that breaks, would end each
# worker that resumes it.
_MOST_PROCESSES = 3


class EtlFailed(KonveyerError):
    """At least one view failed; the others were published."""

    code = "etl_failed"


class ProcessesEnded(KonveyerError):
    """A step was under way in several processes, and none of them lived to its end."""

    code = "etl_processes_ended"


class PlannedView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a view that a run computes."""

    view: str
    version: str


class EtlPayload(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does. A view may be there in several versions: releases go on reading theirs.

    With `again` it computes nothing and puts what is readable online once more.
    """

    run_id: str
    person: str
    as_of_us: int
    views: tuple[PlannedView, ...]
    again: bool = False

    @property
    def run(self) -> Run:
        return Run(flow=NAME, id=self.run_id, payload=msgspec.to_builtins(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class EtlServices:
    """What the flow works with; `databases` are the URLs that sources name, from the settings.

    `near` is an engine in this process, for a few rows at once; `engine` when it is None.
    """

    catalog: Catalog
    engine: Engine
    offline: DeltaOfflineStore
    online: OnlineStore
    root: Path
    databases: Mapping[str, str] = field(default_factory=dict)
    near: Engine | None = None

    @property
    def places(self) -> Places:
        """Where sources stand now, with all rows that were pushed."""
        with self.catalog.reading() as session:
            return self.places_until(listed_segments(session))

    def places_until(self, segments: Mapping[str, Sequence[ListedSegment]]) -> Places:
        return Places(root=self.root, databases=self.databases, segments=segments)

    @property
    def pushed(self) -> Path:
        """The folder of pushed rows."""
        return self.places_until({}).pushed

    def landing(self, held: Held) -> Landing:
        return Landing(
            catalog=self.catalog,
            engine=self.near or self.engine,
            offline=self.offline,
            online=self.online,
            folder=self.pushed,
            held=held,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    state: RegistryState
    view: FeatureView
    version: str
    compiled: CompiledView
    found: dict[str, SourceForm]


def etl_flow(services: EtlServices) -> Flow:
    return Flow(NAME, partial(_run, services))


def _run(services: EtlServices, steps: Steps, payload: Payload) -> Json:
    """Each view stands by itself: one that fails does not keep the others from being published."""
    order = msgspec.convert(payload, EtlPayload)
    failed: dict[str, dict[str, Any]] = {}
    for one in order.views:
        what = f"{one.view} {one.version}"
        try:
            if order.again:
                steps.step(f"publish {what} again", partial(_publish_again, services, order, one))
                continue
            table = steps.step(f"compute {what}", partial(_compute, services, order, one))
            steps.step(f"check {what}", partial(_check, services, order, one, table))
            steps.step(f"publish {what}", partial(_publish, services, order, one, table))
        except KonveyerError as error:
            failed[what] = packed_error(error)
            steps.step(f"fail {what}", partial(_fail, services, order, one, failed[what]))
    if failed:
        first = next(iter(failed.values()))
        raise EtlFailed(
            f"{len(failed)} of {len(order.views)} view(s) failed. {first['message']}",
            hint=first.get("hint"),
            detail=failed,
        )
    return {"run_id": order.run_id}


def _load(services: EtlServices, one: PlannedView) -> _View:
    with services.catalog.reading() as session:
        state = state_at(session, one.view, one.version)
        found = source_forms(session, state)
        compiled = compiled_view(session, one.view, one.version)
    return _View(
        state=state,
        view=state.view(one.view),
        version=one.version,
        compiled=compiled,
        found=found,
    )


def _compute(services: EtlServices, order: EtlPayload, one: PlannedView) -> Json:
    loaded = _load(services, one)
    is_pushed = bool(pushed_sources(loaded.state, one.view))
    with services.catalog.transaction() as session:
        last = runs.begin(
            session,
            order.run_id,
            one.view,
            one.version,
            person=order.person,
            as_of_us=order.as_of_us,
            last_push=last_arrived(session, order.as_of_us) if is_pushed else None,
        )
    _begin(services, order, one, "compute")
    # Read after the run was noted: whoever is forgotten from now on finds the run and waits.
    with services.catalog.reading() as session:
        keys = loaded.compiled.layout.keys
        forgotten = forgotten_in(session, loaded.view.entity, keys)
        segments = listed_segments(session, until=last) if is_pushed else {}
    written = write_offline(
        loaded.state,
        one.view,
        loaded.version,
        without_forgotten(loaded.compiled, forgotten),
        found=loaded.found,
        engine=services.engine,
        offline=services.offline,
        places=services.places_until(segments),
        until_us=order.as_of_us,
        progress=_stages(services, order, one),
    )
    return msgspec.to_builtins(written)


def _begin(services: EtlServices, order: EtlPayload, one: PlannedView, step: str) -> None:
    with services.catalog.transaction() as session:
        times = runs.begun(session, order.run_id, one.view, one.version, step)
    if times > _MOST_PROCESSES:
        raise ProcessesEnded(
            f"Feature view '{one.view}': {_MOST_PROCESSES} processes ended while they were to "
            f"{step.partition(' ')[0]} it.",
            hint="see that there is enough memory, and that a function of it ends no process; then "
            f"konveyer etl run {one.view}",
        )


def _check(services: EtlServices, order: EtlPayload, one: PlannedView, table: Json) -> None:
    """All values are checked before the first of them is published."""
    _begin(services, order, one, "check")
    loaded, written = _load(services, one), msgspec.convert(table, Written)
    parts = checked(
        loaded.view,
        loaded.compiled,
        written.ref,
        engine=services.engine,
        offline=services.offline,
        as_of_us=order.as_of_us,
        most=_MOST_PROFILED,
    )
    progress, buckets = _stages(services, order, one), written.ref.buckets
    sample = pa.concat_tables(counted(parts, progress, "checked", buckets))
    profiles = profile_values(sample)
    with services.catalog.transaction() as session:
        runs.keep_profiles(session, order.run_id, one.view, one.version, profiles)


def _publish(services: EtlServices, order: EtlPayload, one: PlannedView, table: Json) -> None:
    """A process that was killed after the run had succeeded, and before that was on record here,
    publishes nothing again: newer tables may be readable by now.
    """
    loaded, written = _load(services, one), msgspec.convert(table, Written)
    with services.catalog.reading() as session:
        is_published = runs.has_succeeded(session, order.run_id, one.view, one.version)
    if not is_published:
        _publish_table(services, order, loaded, written)
    if pushed_sources(loaded.state, one.view):
        _land(services, one)


def _publish_table(
    services: EtlServices, order: EtlPayload, loaded: _View, written: Written
) -> None:
    one = PlannedView(view=loaded.view.name, version=loaded.version)
    _begin(services, order, one, "publish")
    before = _begin_publishing(services, order, written.ref, order.as_of_us)
    outdated = _outdated(services, loaded, written.ref, order.as_of_us, before)
    progress = _stages(services, order, one)
    published = _put(services, loaded, written.ref, order.as_of_us, outdated, progress)
    with services.catalog.transaction() as session:
        runs.succeed(
            session,
            order.run_id,
            written.ref,
            rows=written.rows,
            published=published,
            undone=before,
        )
        audit.record(
            session,
            order.person,
            "computed",
            "view",
            one.view,
            version=one.version,
            run=order.run_id,
            rows=written.rows,
            published=published,
        )


def _publish_again(services: EtlServices, order: EtlPayload, one: PlannedView) -> None:
    """Put what is readable online as it was published, also where a store has lost it.

    It is a run like others, so that whoever forgets an entity waits for it. When another run made
    a newer table readable meanwhile, that one is published too, and what only the earlier ones had
    is taken away.
    """
    loaded = _load(services, one)
    while True:
        with services.catalog.transaction() as session:
            ref, run = runs.readable_table(session, one.view, one.version)
            runs.begin(
                session,
                order.run_id,
                one.view,
                one.version,
                person=order.person,
                as_of_us=run.as_of_us,
                last_push=run.last_push,
            )
        _begin(services, order, one, f"publish {ref.table_version}")
        before = _begin_publishing(services, order, ref, run.as_of_us)
        # Whoever is forgotten looks for this run after he has left the readable table: of the two
        # one at least finds the other.
        with services.catalog.reading() as session:
            if runs.readable_table(session, one.view, one.version)[0] != ref:
                continue
        outdated = _outdated(services, loaded, ref, run.as_of_us, before)
        progress = _stages(services, order, one)
        published = _put(services, loaded, ref, run.as_of_us, outdated, progress)
        with services.catalog.transaction() as session:
            if runs.readable_table(session, one.view, one.version)[0] != ref:
                continue
            runs.succeed(
                session,
                order.run_id,
                ref,
                rows=run.rows or 0,
                published=published,
                undone=before,
                made_by=run,
            )
            profiles = runs.profiles_of(session, run.run_id, one.view, one.version)
            runs.keep_profiles(session, order.run_id, one.view, one.version, profiles)
            audit.record(
                session,
                order.person,
                "published",
                "view",
                one.view,
                version=one.version,
                run=order.run_id,
                published=published,
            )
        break
    if pushed_sources(loaded.state, one.view):
        _land(services, one)


def _put(
    services: EtlServices,
    loaded: _View,
    ref: TableRef,
    as_of_us: int,
    outdated: frozenset[bytes],
    progress: Progress,
) -> int:
    """Put every entity's values online, take away what else is `outdated`; how many there are."""
    codec, left, published = RecordCodec(loaded.compiled.columns), set(outdated), 0
    name = loaded.view.name
    with naming_view(name):
        parts = _snapshots(services, loaded, ref, as_of_us)
        for part in counted(parts, progress, "published", ref.buckets):
            keys = publish(name, loaded.version, codec, part, services.online, outdated=outdated)
            left.difference_update(keys)
            published += len(keys)
        withdraw(name, loaded.version, left, services.online)
    return published


def _land(services: EtlServices, one: PlannedView) -> None:
    """What was pushed meanwhile: this run has not taken it up, and may have undone it online."""
    landing = services.landing(lambda _session: [(one.view, one.version)])
    with landing.lock:
        landing.catch_up(one.view, one.version)


def _begin_publishing(
    services: EtlServices, order: EtlPayload, ref: TableRef, as_of_us: int
) -> Sequence[PutTable]:
    """Note it in the catalog; of which other tables records may be online.

    That is the readable one, those that were while this run put them, and those whose publication
    did not come to its end since.
    """
    key = ref.view, ref.version
    with services.catalog.transaction() as session:
        runs.publishing(session, order.run_id, ref, as_of_us=as_of_us)
    # Read after it was noted: of two runs at once, one at least finds the other.
    with services.catalog.reading() as session:
        before = runs.readable_tables(session, order.run_id, *key)
        before += runs.unfinished_tables(session).get(key, [])
    return [one for one in before if one.ref != ref]


def _outdated(
    services: EtlServices,
    loaded: _View,
    ref: TableRef,
    as_of_us: int,
    before: Sequence[PutTable],
) -> frozenset[bytes]:
    """Whose records of `before` a publication would leave as they are, though they hold no more."""
    outdated: set[bytes] = set()
    for one in before:
        try:
            stale = stale_keys(
                loaded.compiled,
                PublishedTable(services.offline.open(one.ref), one.run.as_of_us),
                PublishedTable(services.offline.open(ref), as_of_us),
                engine=services.engine,
            )
            for part in stale:
                outdated.update(encoded_keys(part))
        except OfflineTableUnreadable:
            # It is lost, and this run is what repairs it. Nothing tells who was in it.
            _log.exception("what '%s' had published before cannot be read", loaded.view.name)
    return frozenset(outdated)


def _stages(services: EtlServices, order: EtlPayload, one: PlannedView) -> Progress:
    return NotedStages(services.catalog, order.run_id, one.view, one.version)


def _snapshots(
    services: EtlServices, loaded: _View, ref: TableRef, as_of_us: int
) -> Iterator[Snapshot]:
    return snapshots(
        loaded.compiled,
        ref,
        engine=services.engine,
        offline=services.offline,
        as_of_us=as_of_us,
    )


def _fail(
    services: EtlServices, order: EtlPayload, one: PlannedView, error: dict[str, Any]
) -> None:
    with services.catalog.transaction() as session:
        runs.begin(
            session,
            order.run_id,
            one.view,
            one.version,
            person=order.person,
            as_of_us=order.as_of_us,
        )
        runs.fail(session, order.run_id, one.view, one.version, error)
        audit.record(session, order.person, "failed", "view", one.view, run=order.run_id, **error)
