"""Reading the registry: what holds now, and a service resolved for training and serving."""

from dataclasses import dataclass

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.core.schema import ColumnType
from konveyer.feature_store.definitions.definition import Kind, from_spec
from konveyer.feature_store.definitions.resolved import (
    ResolvedFeature,
    ResolvedService,
    ResolvedView,
)
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
    rows = session.scalars(select(DefinitionRow).where(DefinitionRow.active))
    return registry_state(from_spec(Kind(row.kind), row.spec) for row in rows)


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
    service = state.service(name)
    pairs = features_of(service, state)
    views = {
        view: _resolved_view(session, state, view)
        for view in dict.fromkeys(view for view, _ in pairs.values())
    }
    return ResolvedService(
        name=name,
        version=state.versions[Kind.SERVICE, name],
        views=tuple(views.values()),
        features=tuple(
            ResolvedFeature(
                name=name, view=view, feature=feature, dtype=_dtype(views[view], feature)
            )
            for name, (view, feature) in pairs.items()
        ),
    )


def _resolved_view(session: Session, state: RegistryState, name: str) -> ResolvedView:
    version = state.versions[Kind.VIEW, name]
    compiled = compiled_view(session, name, version)
    counts = {f.name for f in compiled.plan.windowed if f.function in ("count", "count_distinct")}
    return ResolvedView(
        name=name,
        version=version,
        keys=compiled.layout.keys,
        columns=compiled.columns,
        defaults=tuple(0 if column.name in counts else None for column in compiled.columns),
        space=space_of(name, version),
        ttl_us=compiled.plan.ttl_us,
        windowed=bool(compiled.plan.windowed),
    )


def space_of(view: str, version: str) -> str:
    """The online space of a view's version."""
    return f"{view}.{version}"


def _dtype(view: ResolvedView, feature: str) -> ColumnType:
    return next(column.dtype for column in view.columns if column.name == feature)
