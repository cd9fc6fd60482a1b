"""Entities that must not come back: ETL leaves their rows out, whatever the source still has."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.core.clock import now_us
from konveyer.feature_store.etl.tables import ForgottenRow
from konveyer.feature_store.offline.identity import digest_sql
from konveyer.feature_store.registry.compile import CompiledView


def forgotten_digests(session: Session, entity: str) -> list[str]:
    """Of the keys of all entities of this kind that were forgotten, done or under way."""
    query = select(ForgottenRow.digest).where(ForgottenRow.entity == entity)
    return list(session.scalars(query.order_by(ForgottenRow.digest)))


def forgettings(session: Session) -> frozenset[tuple[str, str, int | None]]:
    """Each entity that was forgotten: its kind, its digest, and since when that is done."""
    rows = session.scalars(select(ForgottenRow))
    return frozenset((row.entity, row.digest, row.done_us) for row in rows)


def forgotten_entities(session: Session) -> list[str]:
    """The kinds of entities of which somebody was forgotten."""
    return list(session.scalars(select(ForgottenRow.entity).distinct()))


def without_forgotten(compiled: CompiledView, digests: Sequence[str]) -> CompiledView:
    """The view without the rows of those entities; the view itself when there are none."""
    if not digests:
        return compiled
    listed = ", ".join(f"'{digest}'" for digest in digests)
    rows_sql = (
        f"SELECT * FROM ({compiled.rows_sql}) AS known_rows "  # noqa: S608 - hexadecimal digits
        f"WHERE {digest_sql(compiled.layout.keys)} NOT IN ({listed})"
    )
    return replace(compiled, rows_sql=rows_sql)


def leave_out(session: Session, entity: str, digest: str, *, person: str) -> None:
    """From now on no run takes up this entity. Repeating it is harmless."""
    if session.get(ForgottenRow, (entity, digest)) is None:
        session.add(ForgottenRow(entity=entity, digest=digest, person=person, asked_us=now_us()))


def note_done(session: Session, entity: str, digest: str) -> None:
    session.get_one(ForgottenRow, (entity, digest)).done_us = now_us()
