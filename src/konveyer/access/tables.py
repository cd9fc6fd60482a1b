"""Tables of people and their tokens."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from konveyer.catalog.base import Base


class PersonRow(Base):
    __tablename__ = "people"

    name: Mapped[str] = mapped_column(primary_key=True)
    roles: Mapped[list[Any]]
    created_us: Mapped[int]


class TokenRow(Base):
    """`digest` is the SHA-256 of the token; the token itself is kept nowhere."""

    __tablename__ = "tokens"

    digest: Mapped[str] = mapped_column(primary_key=True)
    person: Mapped[str] = mapped_column(ForeignKey("people.name"), index=True)
    issued_us: Mapped[int]
    expires_us: Mapped[int]
    revoked_us: Mapped[int | None]
