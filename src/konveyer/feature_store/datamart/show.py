"""Everything about one feature view: meaning, SQL, freshness, runs, values, and who uses it."""

from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from sqlalchemy.orm import Session

from konveyer.feature_store.datamart.search import FoundFeature, search_features
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.etl.runs import (
    EtlRun,
    ViewNotComputed,
    list_runs,
    profiles_of,
    readable_table,
)
from konveyer.feature_store.registry.lookup import (
    VersionEntry,
    active_state,
    source_forms,
    version_history,
)
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.registry.usage import FeatureUse, uses_of_view

_RUNS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDetails:
    """A source in the lineage of a view: its kind, where it stands, and its columns with types.

    `reads` is a path, SQL, or a database by its name with a table or a query; never a URL.
    """

    name: str
    kind: str
    reads: str
    columns: dict[str, str]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDetails:
    """A view as the shop window shows it. `sources` are its lineage, nearest last.

    `code` is the SQL of a SQL view, or the function of one that has a function.
    """

    name: str
    version: str
    on_demand: bool
    entity: str
    keys: tuple[str, ...]
    description: str
    owner: str
    tags: tuple[str, ...]
    code: str | None
    refresh: str
    ttl: str | None
    sources: list[SourceDetails]
    features: list[FoundFeature]
    profiles: dict[str, dict[str, Any]]
    computed: EtlRun | None
    runs: list[EtlRun]
    versions: list[VersionEntry]
    uses: list[FeatureUse]


def show_view(session: Session, name: str) -> ViewDetails:
    """A feature view or an on-demand view."""
    state = active_state(session)
    provider = state.provider(name)
    if isinstance(provider, OnDemandView):
        return _on_demand(session, state, provider)
    return _stored(session, state, provider)


def _stored(session: Session, state: RegistryState, view: FeatureView) -> ViewDetails:
    key = (Kind.VIEW, view.name)
    try:
        computed: EtlRun | None = readable_table(session, view.name, state.versions[key])[1]
    except ViewNotComputed:
        computed = None
    found = source_forms(session, state)
    return ViewDetails(
        name=view.name,
        version=state.versions[key],
        on_demand=False,
        entity=view.entity,
        keys=tuple(join_key.name for join_key in state.entity(view.entity).join_keys),
        description=view.description,
        owner=view.owner,
        tags=view.tags,
        code=view.function if view.sql is None else cleandoc(view.sql),
        refresh=view.refresh,
        ttl=view.ttl,
        sources=[
            SourceDetails(
                name=source.name,
                kind=found[source.name].kind,
                reads=cleandoc(source.place),
                columns=found[source.name].columns,
                description=source.description,
            )
            for source in state.sources_of(key)
        ],
        features=[found for found in search_features(session) if found.view == view.name],
        profiles={}
        if computed is None
        else profiles_of(session, computed.run_id, view.name, computed.version),
        computed=computed,
        runs=list_runs(session, view=view.name, limit=_RUNS_SHOWN),
        versions=version_history(session, Kind.VIEW, view.name),
        uses=uses_of_view(session, view.name),
    )


def _on_demand(session: Session, state: RegistryState, view: OnDemandView) -> ViewDetails:
    return ViewDetails(
        name=view.name,
        version=state.versions[Kind.ON_DEMAND, view.name],
        on_demand=True,
        entity="",
        keys=(),
        description=view.description,
        owner=view.owner,
        tags=view.tags,
        code=view.code,
        refresh="on demand",
        ttl=None,
        sources=[_input("request", field.name, field.dtype) for field in view.request]
        + [_input("feature", feature, "") for feature in view.inputs],
        features=[found for found in search_features(session) if found.view == view.name],
        profiles={},
        computed=None,
        runs=[],
        versions=version_history(session, Kind.ON_DEMAND, view.name),
        uses=uses_of_view(session, view.name),
    )


def _input(kind: str, name: str, dtype: str) -> SourceDetails:
    columns = {name: dtype} if dtype else {}
    return SourceDetails(name=name, kind=kind, reads=name, columns=columns, description="")
