"""Tables of the release conveyor."""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class ReleaseRow(Base):
    """One bundle on its way to production; `required` are its optional stages.

    `attempt` grows each time that a failed gate is run again.
    """

    __tablename__ = "releases"
    __table_args__ = (Index("ix_releases_application", "application", "api_version"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str]
    api_version: Mapped[int]
    digest: Mapped[str]
    author: Mapped[str]
    trained_by: Mapped[str] = mapped_column(default="")
    state: Mapped[str]
    reason: Mapped[str | None]
    required: Mapped[list[Any]] = mapped_column(default=list)
    attempt: Mapped[int] = mapped_column(default=1)
    opened_us: Mapped[int]
    ended_us: Mapped[int | None]


class StageRow(Base):
    """What a stage of a release found; one row for each, also when it runs again after a kill."""

    __tablename__ = "stages"

    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[str]
    rule: Mapped[str]
    measured: Mapped[str]
    limit: Mapped[str]
    evidence: Mapped[dict[str, Any]]
    by: Mapped[str]
    waiting_us: Mapped[int]
    started_us: Mapped[int]
    finished_us: Mapped[int | None]


class LiveVersionRow(Base):
    """Which bundle an environment serves for a version of an application, and since when.

    It has no release when its author tries it, before any.
    """

    __tablename__ = "live_versions"
    __table_args__ = (Index("ix_live_versions_current", "environment", "until_us"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    environment: Mapped[str]
    application: Mapped[str]
    api_version: Mapped[int]
    digest: Mapped[str]
    release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.id"))
    since_us: Mapped[int]
    until_us: Mapped[int | None]


class SideRow(Base):
    """A release beside the live one: a canary answers for its share, a shadow only listens."""

    __tablename__ = "sides"

    environment: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    side: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str]
    api_version: Mapped[int]
    digest: Mapped[str]
    per_mille: Mapped[int]
    since_us: Mapped[int]
