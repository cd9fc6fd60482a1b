"""The audit log: who changed what, when. Rows are added and never changed."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Index, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from konveyer.catalog.base import Base
from konveyer.core.clock import now_us


class AuditRow(Base):
    """Triggers on both databases refuse UPDATE and DELETE (see `append_only`)."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_subject", "kind", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at_us: Mapped[int]
    actor: Mapped[str]
    action: Mapped[str]
    kind: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change: `actor` did `action` to the `kind` named `subject`."""

    at_us: int
    actor: str
    action: str
    kind: str
    subject: str
    detail: dict[str, Any]


def record(
    session: Session, actor: str, action: str, kind: str, subject: str, **detail: object
) -> None:
    """Add an entry in the caller's transaction, so that it stands or falls with the change."""
    session.add(
        AuditRow(
            at_us=now_us(), actor=actor, action=action, kind=kind, subject=subject, detail=detail
        )
    )


def entries(
    session: Session, *, kind: str | None = None, subject: str | None = None, limit: int = 100
) -> list[AuditEntry]:
    """Newest first."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(AuditRow.kind == kind)
    if subject is not None:
        query = query.where(AuditRow.subject == subject)
    return [
        AuditEntry(
            at_us=row.at_us,
            actor=row.actor,
            action=row.action,
            kind=row.kind,
            subject=row.subject,
            detail=row.detail,
        )
        for row in session.scalars(query)
    ]
