"""Tokens: a person's proof to the commands and the API. Random, expiring, kept as a digest only."""

import hashlib
import secrets
from http import HTTPStatus

from sqlalchemy import select
from sqlalchemy.orm import Session

from konveyer.access.actor import Actor
from konveyer.access.people import person
from konveyer.access.roles import Permission
from konveyer.access.tables import TokenRow
from konveyer.catalog import audit
from konveyer.core.clock import format_us, now_us
from konveyer.core.errors import Forbidden, KonveyerError

_DAY_US = 86_400_000_000
_RENEW = (
    "ask an administrator for a new one: konveyer people token NAME; "
    "when none has a valid token: konveyer people recover"
)


class TokenUnknown(KonveyerError):
    code, status = "token_unknown", HTTPStatus.UNAUTHORIZED


class TokenExpired(KonveyerError):
    code, status = "token_expired", HTTPStatus.UNAUTHORIZED


class TokenRevoked(KonveyerError):
    code, status = "token_revoked", HTTPStatus.UNAUTHORIZED


class BadLifetime(Forbidden):
    code, status = "bad_token_lifetime", HTTPStatus.BAD_REQUEST


def issue_token(session: Session, actor: Actor, name: str, *, valid_days: int = 90) -> str:
    """A new token of `name`, in plain text this one time; for oneself, or by an administrator."""
    if actor.name != name:
        actor.require(Permission.MANAGE_PEOPLE)
    if not 1 <= valid_days <= 366:
        raise BadLifetime(f"A token cannot be valid for {valid_days} days.", hint="use 1 to 366")
    owner = person(session, name)
    token = f"kvy_{secrets.token_urlsafe(32)}"
    now = now_us()
    expires_us = now + valid_days * _DAY_US
    session.add(
        TokenRow(digest=_digest(token), person=owner.name, issued_us=now, expires_us=expires_us)
    )
    audit.record(session, actor.name, "issued", "token", name, expires=format_us(expires_us))
    return token


def authenticate(session: Session, token: str) -> Actor:
    """The holder of `token`. It is found by its digest, so timing tells nothing about it."""
    row = session.get(TokenRow, _digest(token))
    if row is None:
        raise TokenUnknown("This token is not known here.", hint=_RENEW)
    if row.revoked_us is not None:
        raise TokenRevoked(f"This token was revoked {format_us(row.revoked_us)}.", hint=_RENEW)
    if row.expires_us <= now_us():
        raise TokenExpired(f"This token expired {format_us(row.expires_us)}.", hint=_RENEW)
    owner = person(session, row.person)
    return Actor(owner.name, owner.roles)


def revoke_tokens(session: Session, actor: Actor, name: str) -> int:
    """Revoke all valid tokens of `name`; how many they were."""
    if actor.name != name:
        actor.require(Permission.MANAGE_PEOPLE)
    owner = person(session, name)
    now = now_us()
    rows = session.scalars(
        select(TokenRow).where(TokenRow.person == owner.name, TokenRow.revoked_us.is_(None))
    ).all()
    for row in rows:
        row.revoked_us = now
    audit.record(session, actor.name, "revoked", "token", name, count=len(rows))
    return len(rows)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
