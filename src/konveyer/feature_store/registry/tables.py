"""Tables of the registry."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class DefinitionRow(Base):
    """One version of one definition; all versions stay, at most one of a name is active.

    `reads` maps each definition that it refers to, as `kind:name`, to the version of that.
    `compiled` is the view as ETL and the kernel run it, or the source as it was found (None for
    other kinds).
    """

    __tablename__ = "definitions"

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[dict[str, Any]]
    reads: Mapped[dict[str, Any]]
    compiled: Mapped[dict[str, Any] | None]
    active: Mapped[bool]
    created_us: Mapped[int]
    created_by: Mapped[str]


class FeatureUsageRow(Base):
    """A use of a view's feature: by whom, and in what (a training set or a release)."""

    __tablename__ = "feature_usage"
    __table_args__ = (Index("ix_feature_usage_feature", "view", "feature"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    view: Mapped[str]
    feature: Mapped[str]
    used_in: Mapped[str]
    subject: Mapped[str]
    person: Mapped[str]
    at_us: Mapped[int]
