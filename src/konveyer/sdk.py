"""The feature store from a notebook or a script: the same services as the commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import pyarrow as pa
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.profiles import given_token
from konveyer.access.roles import Permission
from konveyer.access.tokens import authenticate
from konveyer.core.clock import to_us
from konveyer.core.settings import load_settings
from konveyer.feature_store.datamart.entities import AT, cadence
from konveyer.feature_store.datamart.explain import ViewCost
from konveyer.feature_store.datamart.kept_rows import kept_labels, kept_manifest
from konveyer.feature_store.datamart.label_files import LabelFiles, LabelsUnreadable, labels_at
from konveyer.feature_store.datamart.label_query import queried_labels
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.manifest import TrainingSet
from konveyer.feature_store.datamart.search import FoundFeature, search_features
from konveyer.feature_store.datamart.show import ViewDetails, show_view
from konveyer.feature_store.datamart.training_set import (
    build_training_set,
    entity_frame,
    explain_training_set,
    rebuild_training_set,
)
from konveyer.feature_store.datamart.typed import TypedColumns
from konveyer.feature_store.definitions.duration import duration_us, parse_duration
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.etl.runs import is_computed, not_computed
from konveyer.feature_store.push.accept import Push
from konveyer.feature_store.registry.landing import lands_at_once
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.feature_store.registry.state import RegistryState
from konveyer.wiring import open_workspace

_RESOLVED_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads a service as it was resolved at `since`."""

    lookup: OnlineLookup
    keys: TypedColumns
    fields: TypedColumns | None
    since: float


class FeatureStore:
    """One workspace, seen by the holder of a token. Thread-safe; close it, or use it in `with`.

    `labels` may be anything that Arrow can read without a copy (an Arrow table, a Polars or a
    pandas frame), or the path of a Parquet file or of a folder of them. Errors are those of the
    commands.

        with FeatureStore("shop") as store:
            built = store.training_set("scoring", labels, label="redeemed")
            frame = built.to_polars()
    """

    def __init__(self, workspace: str | Path = ".", *, profile: str | None = None) -> None:
        self._settings = load_settings(Path(workspace))
        self._workspace = open_workspace(self._settings)
        with self._workspace.catalog.reading() as session:
            self.actor: Actor = authenticate(session, given_token(self._settings.state, profile))
        self._readers: dict[str, _Reader] = {}

    def search(self, text: str = "") -> list[FoundFeature]:
        """Features that match every word of `text`, the best first."""
        self.actor.require(Permission.READ)
        with self._workspace.catalog.reading() as session:
            return search_features(session, text)

    def show(self, view: str) -> ViewDetails:
        """Everything about one feature view."""
        self.actor.require(Permission.READ)
        with self._workspace.catalog.reading() as session:
            return show_view(session, view)

    def training_set(
        self,
        service: str,
        labels: Any,
        *,
        timestamp: str = "label_timestamp",
        label: str | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> TrainingSet:
        """Exactly one row for each label; `keys` maps join keys to columns with other names."""
        here = self._workspace
        return build_training_set(
            here.catalog,
            self.actor,
            here.engine,
            here.offline,
            service=service,
            labels=as_labels(labels),
            timestamp=timestamp,
            label=label,
            folder=here.training_sets,
            columns=keys,
        )

    def training_set_from_sql(
        self,
        service: str,
        sql: str,
        *,
        timestamp: str = "label_timestamp",
        label: str | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> TrainingSet:
        """The labels are the rows of one SELECT over registered sources."""
        here = self._workspace
        places = here.places
        with queried_labels(here.catalog, self.actor, here.engine, places, sql) as labels:
            return self.training_set(service, labels, timestamp=timestamp, label=label, keys=keys)

    def snapshot(self, service: str, start: datetime, end: datetime, every: str) -> TrainingSet:
        """Every known entity at `start`, and again `every` (such as `7d`) until `end`."""
        here = self._workspace
        step_us = duration_us(parse_duration(every, where="every"))
        moments_us = cadence(to_us(start), to_us(end), step_us)
        with entity_frame(
            here.catalog,
            here.engine,
            here.offline,
            service=service,
            moments_us=moments_us,
            staging=here.places.staging,
        ) as spine:
            return self.training_set(service, spine, timestamp=AT)

    def explain(
        self,
        service: str,
        labels: Any,
        *,
        timestamp: str = "label_timestamp",
        keys: Mapping[str, str] | None = None,
    ) -> list[ViewCost]:
        """What building a training set reads of each view, estimated and true."""
        here = self._workspace
        return explain_training_set(
            here.catalog,
            self.actor,
            here.engine,
            here.offline,
            service=service,
            labels=as_labels(labels),
            timestamp=timestamp,
            folder=here.training_sets,
            columns=keys,
        )

    def rebuild(self, training_set: str, labels: Any = None) -> pa.Table:
        """A training set once more, from its manifest; raises when it is not the same.

        Without `labels` from those that are kept with it.
        """
        here = self._workspace
        with here.catalog.reading() as session:
            manifest = kept_manifest(session, training_set, "")
        rebuilt = rebuild_training_set(
            here.catalog,
            self.actor,
            here.engine,
            here.offline,
            manifest,
            kept_labels(here.training_sets, manifest) if labels is None else as_labels(labels),
            folder=here.training_sets,
        )
        with rebuilt as again:
            return again.table

    def online(
        self, service: str, keys: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any] | None]:
        """The features of each entity as a node would read them now; None for an unknown one.

        `keys` have the join keys of each by name, and the request fields that on-demand features
        are computed from. Definitions that were applied meanwhile are taken up within ten seconds,
        once ETL has computed their views; until then a service is read as it was. Raises
        `ViewNotComputed` for one that was not read before.
        """
        read = self._reader(service)
        requests = [read.fields(key) for key in keys] if read.fields is not None else ()
        rows = read.lookup.rows([read.keys(key) for key in keys], requests)
        names = read.lookup.names
        return [None if row is None else dict(zip(names, row, strict=False)) for row in rows]

    def push(self, source: str, rows: Any, *, key: str, dry_run: bool = False) -> Push:
        """Send rows to a source: kept exactly once for each `key`, online when this returns.

        `rows` are a list of dicts, or what Arrow can read (an Arrow table, a Polars or a pandas
        frame), with every column of the source. Repeat a push that failed with the same key.
        """
        return self._workspace.pusher.push(self.actor, source, rows, key=key, dry_run=dry_run)

    def _reader(self, service: str) -> "_Reader":
        reader = self._readers.get(service)
        if reader is None or monotonic() - reader.since > _RESOLVED_EVERY_S:
            self.actor.require(Permission.READ)
            reader = self._readers[service] = self._resolved(service, reader)
        return reader

    def _resolved(self, service: str, earlier: "_Reader | None") -> "_Reader":
        with self._workspace.catalog.reading() as session:
            state = active_state(session)
            resolved = resolve_service(session, state, service)
            awaited = _awaited(session, state, resolved)
        if awaited is not None:
            if earlier is None:
                raise not_computed(awaited)
            return replace(earlier, since=monotonic())
        return _Reader(
            lookup=OnlineLookup(resolved, self._workspace.online, self._settings.clock),
            keys=TypedColumns(resolved.keys),
            fields=TypedColumns(resolved.request, nullable=True) if resolved.request else None,
            since=monotonic(),
        )

    def close(self) -> None:
        self._workspace.close()

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def _awaited(session: Session, state: RegistryState, service: ResolvedService) -> str | None:
    """A view of the service that has nothing online until an ETL run computes its version."""
    for view in service.views:
        if not lands_at_once(state, state.view(view.name)) and not is_computed(
            session, view.name, view.version
        ):
            return view.name
    return None


def as_labels(labels: Any) -> pa.Table | LabelFiles:
    """An Arrow table of a frame, or what `labels_at` a path there is.

    >>> as_labels({"a": [1]}).num_rows
    1
    """
    match labels:
        case str() | Path():
            return labels_at(Path(labels))
        case LabelFiles():
            return labels
        case _:
            return _as_table(labels)


def _as_table(labels: Any) -> pa.Table:
    try:
        table = pa.table(labels)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise LabelsUnreadable(
            f"The label frame is {type(labels).__name__}, of which Arrow makes no table: {error}",
            hint="give an Arrow table, a Polars or pandas frame, or the path of a Parquet file",
        ) from error
    # What pandas has besides its columns.
    index = [name for name in table.column_names if name.startswith("__index_level_")]
    return table.drop_columns(index)
