"""API keys: what systems call models with. Random, kept as a digest only, shown once.

Nodes never ask the catalog: `published_keys` travel to them in the document that they follow.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.access.tables import ApiKeyRow
from konveyer.catalog import audit
from konveyer.core.clock import format_us, now_us
from konveyer.core.errors import KonveyerError, NotFound, did_you_mean

_DAY_US = 86_400_000_000
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")
_SHOWN = 12


class BadApiKey(KonveyerError):
    """A name, rate or lifetime that a key cannot have."""

    code = "bad_api_key"


class ApiKeyNotFound(NotFound):
    code = "api_key_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """What a key is for: one environment, these applications (all when empty), how often."""

    name: str
    environment: str
    applications: tuple[str, ...] = ()
    rate_per_s: float | None = None
    valid_days: int | None = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as the catalog has it. `id` is the beginning of its digest."""

    digest: str
    name: str
    environment: str
    applications: tuple[str, ...]
    rate_per_s: float | None
    created_us: int
    created_by: str
    expires_us: int | None
    revoked_us: int | None

    @property
    def id(self) -> str:
        return self.digest[:_SHOWN]


def create_key(session: Session, actor: Actor, terms: KeyTerms) -> str:
    """A new key, in plain text this one time. A name may have several: that is how one is changed.

    Nodes know it once the environment's document is published.
    """
    actor.require(Permission.MANAGE_KEYS)
    return issue_key(session, actor.name, terms)


def issue_key(session: Session, by: str, terms: KeyTerms) -> str:
    """Like `create_key`, for the conveyor itself."""
    if not _NAME.fullmatch(terms.name):
        raise BadApiKey(
            f"'{terms.name}' cannot be a key's name.",
            hint="use lower-case letters, digits, '.', '_' and '-', a letter first",
        )
    if terms.rate_per_s is not None and not 0.001 <= terms.rate_per_s <= 1e6:
        raise BadApiKey(
            f"A key cannot have the rate {terms.rate_per_s:g}.", hint="use 0.001 to 1e6"
        )
    if terms.valid_days is not None and not 1 <= terms.valid_days <= 3660:
        raise BadApiKey(f"A key cannot be valid for {terms.valid_days} days.", hint="use 1 to 3660")
    key = f"kvk_{secrets.token_urlsafe(32)}"
    now = now_us()
    expires_us = None if terms.valid_days is None else now + terms.valid_days * _DAY_US
    digest = hashlib.sha256(key.encode()).hexdigest()
    session.add(
        ApiKeyRow(
            digest=digest,
            name=terms.name,
            environment=terms.environment,
            applications=sorted(terms.applications),
            rate_per_s=terms.rate_per_s,
            created_us=now,
            created_by=by,
            expires_us=expires_us,
        )
    )
    session.flush()
    audit.record(
        session,
        by,
        "created",
        "API key",
        terms.name,
        key=digest[:_SHOWN],
        environment=terms.environment,
        applications=sorted(terms.applications),
        rate_per_s=terms.rate_per_s,
        expires=None if expires_us is None else format_us(expires_us),
    )
    return key


def list_keys(session: Session, actor: Actor) -> list[KeyRecord]:
    """All of them, by name, the newest of a name first."""
    actor.require(Permission.READ)
    rows = session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.name, ApiKeyRow.created_us.desc()))
    return [_record(row) for row in rows]


def revoke_keys(
    session: Session, actor: Actor, name: str, key_id: str = "", environment: str | None = None
) -> list[KeyRecord]:
    """Revoke the valid keys of a name, all or those of an environment, or the one whose id begins
    so; which they were.
    """
    actor.require(Permission.MANAGE_KEYS)
    rows = session.scalars(
        select(ApiKeyRow).where(ApiKeyRow.name == name, ApiKeyRow.revoked_us.is_(None))
    ).all()
    found = [
        row
        for row in rows
        if row.digest.startswith(key_id) and environment in (None, row.environment)
    ]
    if not found:
        known = session.scalars(select(ApiKeyRow.name).where(ApiKeyRow.revoked_us.is_(None)))
        what = f"'{name}'" + (f" that begins with {key_id}" if key_id else "")
        what += f" in {environment}" if environment else ""
        raise ApiKeyNotFound(
            f"There is no valid key {what}.",
            hint=did_you_mean(name, {*known} - {name}, otherwise="konveyer key list"),
        )
    for row in found:
        row.revoked_us = now_us()
        audit.record(session, actor.name, "revoked", "API key", name, key=row.digest[:_SHOWN])
    return [_record(row) for row in found]


def published_keys(session: Session, environment: str) -> Sequence[KeyRecord]:
    """Those that nodes of an environment let in, by digest."""
    rows = session.scalars(
        select(ApiKeyRow)
        .where(ApiKeyRow.environment == environment, ApiKeyRow.revoked_us.is_(None))
        .where(or_(ApiKeyRow.expires_us.is_(None), ApiKeyRow.expires_us > now_us()))
        .order_by(ApiKeyRow.digest)
    )
    return [_record(row) for row in rows]


def is_valid(session: Session, key: str) -> bool:
    """Whether a key is known and neither revoked nor expired."""
    row = session.get(ApiKeyRow, hashlib.sha256(key.encode()).hexdigest())
    if row is None or row.revoked_us is not None:
        return False
    return row.expires_us is None or row.expires_us > now_us()


def _record(row: ApiKeyRow) -> KeyRecord:
    return msgspec.convert(row, KeyRecord, from_attributes=True)
