"""Reading the registry: what holds now, and a service resolved for training and serving."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.core.schema import Column, Dtype
from konveyer.feature_store.definitions.definition import Definition, Kind, from_spec
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedInput,
    ResolvedOnDemand,
    ResolvedService,
    ResolvedView,
)
from konveyer.feature_store.definitions.view import FeatureView
from konveyer.feature_store.registry.check import SourceForm
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.state import RegistryState, features_of, registry_state
from konveyer.feature_store.registry.tables import DefinitionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionEntry:
    """One version in the history of a definition."""

    version: str
    active: bool
    created_us: int
    created_by: str


def active_state(session: Session) -> RegistryState:
    """All definitions that hold now."""
    rows = session.scalars(select(DefinitionRow).where(DefinitionRow.active)).all()
    definitions = (from_spec(Kind(row.kind), row.spec) for row in rows)
    state = registry_state(definitions, applied=True)
    return replace(state, versions={(Kind(row.kind), row.name): row.version for row in rows})


def active_versions(session: Session) -> dict[tuple[Kind, str], str]:
    """The versions of all definitions that hold now: equal ones mean an equal `active_state`."""
    query = select(DefinitionRow.kind, DefinitionRow.name, DefinitionRow.version)
    rows = session.execute(query.where(DefinitionRow.active))
    return {(Kind(kind), name): version for kind, name, version in rows}


def source_forms(session: Session, state: RegistryState) -> dict[str, SourceForm]:
    """Each source of `state`, as it was found when that version was applied."""
    rows = (
        session.get_one(DefinitionRow, (str(kind), name, version))
        for (kind, name), version in state.versions.items()
        if kind is Kind.SOURCE
    )
    return {row.name: msgspec.convert(row.compiled, SourceForm) for row in rows}


def reformed_sources(
    session: Session, state: RegistryState, found: Mapping[str, SourceForm]
) -> frozenset[str]:
    """Sources of `state` that are `found` to be of another kind than when they were applied."""
    applied = source_forms(session, state)
    return frozenset(
        name for name, form in applied.items() if name in found and found[name].kind != form.kind
    )


def state_at(session: Session, view: str, version: str) -> RegistryState:
    """A version of a view, active or not, with all that it refers to as that was then."""
    found: dict[tuple[Kind, str], Definition] = {}
    versions: dict[tuple[Kind, str], str] = {}
    wanted = [(Kind.VIEW, view, version)]
    while wanted:
        kind, name, at = wanted.pop()
        row = session.get_one(DefinitionRow, (str(kind), name, at))
        found[kind, name], versions[kind, name] = from_spec(kind, row.spec), at
        for key, read_version in row.reads.items():
            read_kind, _, read = key.partition(":")
            wanted.append((Kind(read_kind), read, read_version))
    return replace(registry_state(found.values(), applied=True), versions=versions)


def compiled_view(session: Session, name: str, version: str) -> CompiledView:
    """A version of a view as it was compiled when it was applied."""
    row = session.get_one(DefinitionRow, (str(Kind.VIEW), name, version))
    compiled: CompiledView = msgspec.convert(row.compiled, CompiledView)
    return compiled


def version_history(session: Session, kind: Kind, name: str) -> list[VersionEntry]:
    """Newest first."""
    query = select(DefinitionRow).where(DefinitionRow.kind == kind, DefinitionRow.name == name)
    return [
        VersionEntry(
            version=row.version,
            active=row.active,
            created_us=row.created_us,
            created_by=row.created_by,
        )
        for row in session.scalars(query.order_by(DefinitionRow.created_us.desc()))
    ]


def defined_views(session: Session) -> set[tuple[str, str]]:
    """Every version that any view ever had, by name and version."""
    query = select(DefinitionRow.name, DefinitionRow.version)
    rows = session.execute(query.where(DefinitionRow.kind == Kind.VIEW))
    return {(name, version) for name, version in rows}


def resolve_service(session: Session, state: RegistryState, name: str) -> ResolvedService:
    """A service with the views, columns and spaces that a reader needs."""
    pairs = features_of(state.service(name), state)
    providers = {view: state.provider(view) for view, _ in pairs.values()}
    inputs = [
        view
        for provider in providers.values()
        if isinstance(provider, OnDemandView)
        for view, _ in provider.input_features
    ]
    stored = [view for view, found in providers.items() if isinstance(found, FeatureView)]
    views = {view: _resolved_view(session, state, view) for view in dict.fromkeys(stored + inputs)}
    on_demand = {
        view: _resolved_on_demand(state, provider, views)
        for view, provider in providers.items()
        if isinstance(provider, OnDemandView)
    }
    columns = {view.name: view.columns for view in views.values()}
    columns |= {view.name: view.outputs for view in on_demand.values()}
    return ResolvedService(
        name=name,
        version=state.versions[Kind.SERVICE, name],
        views=tuple(views.values()),
        features=tuple(
            ResolvedFeature(
                name=name, view=view, feature=feature, dtype=_dtype(columns[view], feature)
            )
            for name, (view, feature) in pairs.items()
        ),
        on_demand=tuple(on_demand.values()),
    )


def _resolved_on_demand(
    state: RegistryState, view: OnDemandView, stored: dict[str, ResolvedView]
) -> ResolvedOnDemand:
    return ResolvedOnDemand(
        name=view.name,
        version=state.versions[Kind.ON_DEMAND, view.name],
        code=view.code,
        request=tuple(field.column for field in view.request),
        inputs=tuple(
            ResolvedInput(view=name, feature=feature, dtype=_dtype(stored[name].columns, feature))
            for name, feature in view.input_features
        ),
        outputs=view.outputs,
    )


def _resolved_view(session: Session, state: RegistryState, name: str) -> ResolvedView:
    version = state.versions[Kind.VIEW, name]
    compiled = compiled_view(session, name, version)
    counts = {f.name for f in compiled.plan.windowed if f.function in ("count", "count_distinct")}
    zeros = counts | {
        derived.name
        for derived in compiled.plan.derived
        if derived.operation == "difference" and {derived.left, derived.right} <= counts
    }
    return ResolvedView(
        name=name,
        version=version,
        keys=compiled.layout.keys,
        columns=compiled.columns,
        defaults=tuple(0 if column.name in zeros else None for column in compiled.columns),
        space=space_of(name, version),
        ttl_us=compiled.plan.ttl_us,
        windowed=bool(compiled.plan.windowed),
    )


def space_of(view: str, version: str) -> str:
    """The online space of a view's version."""
    return f"{view}.{version}"


def _dtype(columns: tuple[Column, ...], feature: str) -> Dtype:
    return next(column.dtype for column in columns if column.name == feature)
