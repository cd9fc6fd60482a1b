"""Entities that must not come back: ETL leaves their rows out, whatever the source still has.

An entity that gets another name, or its join keys another order, is the same one: whoever was
forgotten under a name that is not in use any more is so for an entity that came later and has join
keys of the same names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.core.schema import ScalarColumn
from konveyer.feature_store.definitions.definition import Kind, from_spec
from konveyer.feature_store.definitions.entity import Entity
from konveyer.feature_store.etl.tables import ForgottenRow
from konveyer.feature_store.offline.identity import digest_sql
from konveyer.feature_store.registry.compile import CompiledView
from konveyer.feature_store.registry.lookup import active_versions
from konveyer.feature_store.registry.tables import DefinitionRow


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The digests of whom to leave out, made of the join keys of these names in this order."""

    keys: tuple[str, ...]
    digests: tuple[str, ...]


def forgotten_in(
    session: Session, entity: str, keys: Sequence[ScalarColumn]
) -> tuple[Forgotten, ...]:
    """Whom a view of this entity, with these join keys, leaves out."""
    found: dict[tuple[str, ...], set[str]] = {}
    in_use, since_us = entities_in_use(session), _first_defined_us(session, entity)
    for name, columns in forgotten_entities(session):
        names = tuple(column.name for column in columns)
        if set(names) != {key.name for key in keys}:
            continue
        digests = found.setdefault(names, set())
        if name == entity or entity not in in_use:
            digests.update(forgotten_digests(session, name))
        elif name not in in_use:
            digests.update(forgotten_digests(session, name, before_us=since_us))
    return tuple(
        Forgotten(names, tuple(sorted(digests))) for names, digests in found.items() if digests
    )


def entities_in_use(session: Session) -> frozenset[str]:
    """The names of the entities that are defined now."""
    return frozenset(name for kind, name in active_versions(session) if kind is Kind.ENTITY)


def _first_defined_us(session: Session, entity: str) -> int:
    first = select(func.min(DefinitionRow.created_us)).where(
        DefinitionRow.kind == Kind.ENTITY, DefinitionRow.name == entity
    )
    return session.scalar(first) or 0


def forgotten_digests(session: Session, entity: str, *, before_us: int | None = None) -> list[str]:
    """Of the keys of all entities of this kind that were forgotten, done or under way; of those
    before a moment.
    """
    query = select(ForgottenRow.digest).where(ForgottenRow.entity == entity)
    if before_us is not None:
        query = query.where(ForgottenRow.asked_us < before_us)
    return list(session.scalars(query.order_by(ForgottenRow.digest)))


def forgettings(session: Session) -> frozenset[tuple[str, str, int | None]]:
    """Each entity that was forgotten: its kind, its digest, and since when that is done."""
    rows = session.scalars(select(ForgottenRow))
    return frozenset((row.entity, row.digest, row.done_us) for row in rows)


def forgotten_entities(session: Session) -> Iterator[tuple[str, tuple[ScalarColumn, ...]]]:
    """The kinds of entities of which somebody was forgotten, with all join keys that each ever had.

    Of which of them a digest was made is not kept.
    """
    query = select(DefinitionRow).where(
        DefinitionRow.kind == Kind.ENTITY, DefinitionRow.name.in_(select(ForgottenRow.entity))
    )
    for row in session.scalars(query.order_by(DefinitionRow.name, DefinitionRow.version)):
        entity = from_spec(Kind.ENTITY, row.spec)
        assert isinstance(entity, Entity)  # noqa: S101 - the kind says so
        yield row.name, tuple(key.column for key in entity.join_keys)


def without_forgotten(compiled: CompiledView, forgotten: Sequence[Forgotten]) -> CompiledView:
    """The view without the rows of those entities; the view itself when there are none."""
    if not forgotten:
        return compiled
    keys = {key.name: key for key in compiled.layout.keys}
    others = []
    for one in forgotten:
        listed = ", ".join(f"'{digest}'" for digest in one.digests)
        others.append(f"{digest_sql([keys[name] for name in one.keys])} NOT IN ({listed})")
    rows_sql = (
        f"SELECT * FROM ({compiled.rows_sql}) AS known_rows "  # noqa: S608 - hexadecimal digits
        f"WHERE {' AND '.join(others)}"
    )
    return replace(compiled, rows_sql=rows_sql)


def leave_out(session: Session, entity: str, digest: str, *, person: str) -> None:
    """From now on no run takes up this entity. Repeating it is harmless."""
    if session.get(ForgottenRow, (entity, digest)) is None:
        session.add(ForgottenRow(entity=entity, digest=digest, person=person, asked_us=now_us()))


def note_done(session: Session, entity: str, digest: str) -> None:
    session.get_one(ForgottenRow, (entity, digest)).done_us = now_us()
