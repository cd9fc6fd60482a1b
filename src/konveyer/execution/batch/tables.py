"""The table of batch scoring."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class BatchRunRow(Base):
    """One period of one run. Its rows are readable once it is `succeeded`.

    `rows` counts those that are scored so far, of `rows_asked`.
    """

    __tablename__ = "batch_runs"
    __table_args__ = (Index("ix_batch_runs_model", "application", "api_version", "at_us"),)

    run_id: Mapped[str] = mapped_column(primary_key=True)
    period: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str]
    api_version: Mapped[int]
    release: Mapped[str]
    digest: Mapped[str]
    person: Mapped[str]
    status: Mapped[str]
    at_us: Mapped[int]
    started_us: Mapped[int]
    finished_us: Mapped[int | None]
    rows_asked: Mapped[int | None]
    rows: Mapped[int | None]
    table_version: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
