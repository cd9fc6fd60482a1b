"""Everything about one feature view: meaning, SQL, freshness, runs, values, and who uses it."""

from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from sqlalchemy.orm import Session

from konveyer.feature_store.datamart.search import FoundFeature, search_features
from konveyer.feature_store.definitions.definition import Kind
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
    """A view as the shop window shows it. `sources` are its lineage, nearest last."""

    name: str
    version: str
    entity: str
    keys: tuple[str, ...]
    description: str
    owner: str
    tags: tuple[str, ...]
    sql: str | None
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
    state = active_state(session)
    view = state.view(name)
    key = (Kind.VIEW, name)
    try:
        computed: EtlRun | None = readable_table(session, name, state.versions[key])[1]
    except ViewNotComputed:
        computed = None
    found = source_forms(session)
    return ViewDetails(
        name=name,
        version=state.versions[key],
        entity=view.entity,
        keys=tuple(join_key.name for join_key in state.entity(view.entity).join_keys),
        description=view.description,
        owner=view.owner,
        tags=view.tags,
        sql=None if view.sql is None else cleandoc(view.sql),
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
        features=[found for found in search_features(session) if found.view == name],
        profiles={} if computed is None else profiles_of(session, computed.run_id, name),
        computed=computed,
        runs=list_runs(session, view=name, limit=_RUNS_SHOWN),
        versions=version_history(session, Kind.VIEW, name),
        uses=uses_of_view(session, name),
    )
