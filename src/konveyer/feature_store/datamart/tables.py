"""Tables of the datamart."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class TrainingSetRow(Base):
    """A training set that was built: its manifest says exactly from what.

    `altered_us` is when rows of a forgotten entity were taken out of it, or of its tables: from
    then on it cannot be built again.
    """

    __tablename__ = "training_sets"

    id: Mapped[str] = mapped_column(primary_key=True)
    service: Mapped[str]
    person: Mapped[str]
    built_us: Mapped[int]
    rows: Mapped[int]
    manifest: Mapped[dict[str, Any]]
    altered_us: Mapped[int | None]
