"""Make checked definitions the ones that hold, in one transaction."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog import audit
from konveyer.core.clock import now_us
from konveyer.feature_store.definitions.definition import Kind, to_spec
from konveyer.feature_store.registry.check import Checked
from konveyer.feature_store.registry.errors import PlanOutdated
from konveyer.feature_store.registry.plan import ApplyPlan
from konveyer.feature_store.registry.tables import DefinitionRow

_DONE = {"add": "added", "change": "changed", "describe": "described", "remove": "removed"}


def apply(session: Session, actor: Actor, plan: ApplyPlan, checked: Checked) -> None:
    """Make `plan.wanted`, which was checked, hold. Applying it again changes nothing; history is
    kept.
    """
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
        if change.before is not None and change.before != change.after:
            rows[change.kind, change.name].active = False
        if change.after is not None:
            _activate(session, actor, plan, Kind(change.kind), change.name, checked)
        audit.record(
            session,
            actor.name,
            _DONE[change.action],
            change.kind,
            change.name,
            before=change.before,
            after=change.after,
        )
    for (kind, name), row in rows.items():
        if row.active and kind == Kind.SOURCE:  # it may have got columns since it was applied
            row.compiled = msgspec.to_builtins(checked.sources[name])
    _reform(session, checked)


def _reform(session: Session, checked: Checked) -> None:
    """What is at a path has changed for the earlier versions of its source as well, which views of
    releases still read.
    """
    sources = session.scalars(select(DefinitionRow).where(DefinitionRow.kind == Kind.SOURCE)).all()
    paths = {row.name: path for row in sources if row.active and (path := row.spec.get("path"))}
    for row in sources:
        if row.compiled and row.name in paths and row.spec.get("path") == paths[row.name]:
            row.compiled = {**row.compiled, "kind": str(checked.sources[row.name].kind)}


def _activate(
    session: Session,
    actor: Actor,
    plan: ApplyPlan,
    kind: Kind,
    name: str,
    checked: Checked,
) -> None:
    version = plan.wanted.versions[kind, name]
    spec = to_spec(plan.wanted.definitions[kind, name])
    session.flush()
    found: dict[Kind, Mapping[str, object]]
    found = {Kind.VIEW: checked.views, Kind.SOURCE: checked.sources}
    form: Any = msgspec.to_builtins(found[kind][name]) if kind in found else None
    if session.get(DefinitionRow, (str(kind), name, version)) is not None:
        session.execute(
            update(DefinitionRow)
            .where(DefinitionRow.kind == kind, DefinitionRow.name == name)
            .where(DefinitionRow.version == version)
            .values(active=True, spec=spec, compiled=form)
        )
        return
    session.add(
        DefinitionRow(
            kind=str(kind),
            name=name,
            version=version,
            spec=spec,
            reads={
                f"{k}:{n}": plan.wanted.versions[k, n] for k, n in plan.wanted.reads[kind, name]
            },
            compiled=form,
            active=True,
            created_us=now_us(),
            created_by=actor.name,
        )
    )
