"""Check definitions against real data, then make them the ones that hold, in one transaction."""

from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.feature_store.definitions.definition import Kind, to_spec
from konveyer.feature_store.definitions.on_demand import OnDemandView
from konveyer.feature_store.definitions.python_code import callable_of
from konveyer.feature_store.engines.base import Engine, QueryFailed
from konveyer.feature_store.kernel.on_demand import OnDemandComputation, as_array
from konveyer.feature_store.registry.compile import CompiledView, compile_view
from konveyer.feature_store.registry.errors import PlanOutdated, SqlInvalid
from konveyer.feature_store.registry.plan import ApplyPlan
from konveyer.feature_store.registry.python_view import call, without_bucket
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.registry.tables import DefinitionRow


def compile_views(state: RegistryState, engine: Engine, root: Path) -> dict[str, CompiledView]:
    """Every view of `state`, checked against the real columns of its sources."""
    compiled = {}
    for name in state.names(Kind.VIEW):
        view = state.view(name)
        attach_sources(state, name, engine, root)
        source = None if view.source is None else state.source(view.source)
        sql = view.sql if source is None else f"SELECT * FROM {source.name}"  # noqa: S608
        try:
            rows = engine.describe(sql or "")
            result = compile_view(view, state.entity(view.entity), source, rows)
            given = result.given or result.layout
            for _, expression in given.expressions:
                engine.describe(f"SELECT {expression} FROM ({sql}) AS source_rows")  # noqa: S608
        except QueryFailed as error:
            raise SqlInvalid(f"Feature view '{name}': {error.message}", hint=error.hint) from error
        if result.code is not None:
            call(name, result, without_bucket(given.schema).empty_table())
        compiled[name] = result
    for name in state.names(Kind.ON_DEMAND):
        _try_on_nulls(state.on_demand(name), compiled)
    return compiled


def _try_on_nulls(view: OnDemandView, compiled: dict[str, CompiledView]) -> None:
    """Any input may be null: what the function makes of nulls shows its outputs and their shape."""
    types = {field.name: field.column.dtype for field in view.request}
    for name, feature in view.input_features:
        types |= {c.name: c.dtype for c in compiled[name].columns if c.name == feature}
    outputs = [feature.column for feature in view.features]
    compute = OnDemandComputation(view.name, callable_of(view.code), outputs)
    compute({name: as_array([None, None], dtype) for name, dtype in types.items()})


def attach_sources(state: RegistryState, view: str, engine: Engine, root: Path) -> None:
    """Make all that a view reads readable by name in the engine."""
    for source in state.sources_of((Kind.VIEW, view)):
        if source.sql is not None:
            try:
                engine.attach_query(source.name, source.sql)
            except QueryFailed as error:
                raise SqlInvalid(
                    f"Source '{source.name}': {error.message}", hint=error.hint
                ) from error
        else:
            engine.attach(source.name, str(root / (source.path or "")))


def apply(
    session: Session, actor: Actor, plan: ApplyPlan, compiled: dict[str, CompiledView]
) -> None:
    """Make `plan.wanted` hold. Applying it again changes nothing; history is kept."""
    actor.require(Permission.DEFINE_FEATURES)
    active = select(DefinitionRow).where(DefinitionRow.active)
    rows = {(row.kind, row.name): row for row in session.scalars(active)}
    if {key: row.version for key, row in rows.items()} != {
        (str(kind), name): version for (kind, name), version in plan.current.versions.items()
    }:
        raise PlanOutdated(
            "Somebody applied other definitions in the meantime.", hint="plan and apply again"
        )
    for change in plan.changes:
        if change.before is not None:
            rows[change.kind, change.name].active = False
        if change.after is not None:
            _activate(session, actor, plan, Kind(change.kind), change.name, compiled)
        audit.record(
            session,
            actor.name,
            {"add": "added", "change": "changed", "remove": "removed"}[change.action],
            change.kind,
            change.name,
            before=change.before,
            after=change.after,
        )


def _activate(
    session: Session,
    actor: Actor,
    plan: ApplyPlan,
    kind: Kind,
    name: str,
    compiled: dict[str, CompiledView],
) -> None:
    version = plan.wanted.versions[kind, name]
    session.flush()
    form: Any = msgspec.to_builtins(compiled[name]) if kind is Kind.VIEW else None
    if session.get(DefinitionRow, (str(kind), name, version)) is not None:
        session.execute(
            update(DefinitionRow)
            .where(DefinitionRow.kind == kind, DefinitionRow.name == name)
            .where(DefinitionRow.version == version)
            .values(active=True, compiled=form)
        )
        return
    session.add(
        DefinitionRow(
            kind=str(kind),
            name=name,
            version=version,
            spec=to_spec(plan.wanted.definitions[kind, name]),
            reads={
                f"{k}:{n}": plan.wanted.versions[k, n] for k, n in plan.wanted.reads[kind, name]
            },
            compiled=form,
            active=True,
            created_us=now_us(),
            created_by=actor.name,
        )
    )
