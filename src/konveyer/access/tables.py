"""Tables of people, their tokens, and the API keys of systems."""

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


class ApiKeyRow(Base):
    """`digest` is the SHA-256 of the key; the key itself is kept nowhere."""

    __tablename__ = "api_keys"

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    environment: Mapped[str]
    applications: Mapped[list[Any]]
    rate_per_s: Mapped[float | None]
    created_us: Mapped[int]
    created_by: Mapped[str]
    expires_us: Mapped[int | None]
    revoked_us: Mapped[int | None]
