"""Tables of ETL: its runs, what the published values look like, and whom it leaves out."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class EtlRunRow(Base):
    """A version of a view in a run. `table_version` is readable once it is `succeeded`, and None
    again when vacuum has removed it.

    Until then it is the one of which records may be online, and None before the first of them and
    once a later publication has made up for a failed one.

    `last_push` is the number of the last push whose rows it took up, or None when the view reads
    no pushed source. `stage` says how far it has come for as long as it is running,
    `begun` how many processes have begun the step that it is at.
    """

    __tablename__ = "etl_runs"
    __table_args__ = (Index("ix_etl_runs_view", "view", "version", "started_us"),)

    run_id: Mapped[str] = mapped_column(primary_key=True)
    view: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    person: Mapped[str]
    status: Mapped[str]
    as_of_us: Mapped[int]
    started_us: Mapped[int]
    finished_us: Mapped[int | None]
    rows: Mapped[int | None]
    published: Mapped[int | None]
    table_version: Mapped[int | None]
    buckets: Mapped[int | None]
    last_push: Mapped[int | None]
    stage: Mapped[dict[str, Any] | None]
    begun: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]


class ProfileRow(Base):
    """What the values of one feature looked like when a run published them."""

    __tablename__ = "profiles"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    view: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    feature: Mapped[str] = mapped_column(primary_key=True)
    profile: Mapped[dict[str, Any]]


class ForgottenRow(Base):
    """An entity that ETL leaves out, by the digest of its key; done once it was removed as well."""

    __tablename__ = "forgotten"

    entity: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    person: Mapped[str]
    asked_us: Mapped[int]
    done_us: Mapped[int | None]
