"""Tokens and keys that a person keeps in a workspace on his machine, readable by him alone."""

import os
from http import HTTPStatus
from pathlib import Path

from konveyer.core.errors import KonveyerError
from konveyer.core.files import write_atomically

DEFAULT = "default"


class NotSignedIn(KonveyerError):
    code, status = "not_signed_in", HTTPStatus.UNAUTHORIZED


def save_token(state: Path, profile: str, token: str) -> Path:
    path = _path(state, profile)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, token.encode(), mode=0o600)
    return path


def save_api_key(state: Path, name: str, environment: str, key: str) -> Path:
    """Keep a system's key, readable by its owner alone."""
    path = state / "keys" / f"{name}-{environment}"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, key.encode(), mode=0o600)
    return path


def given_token(state: Path, profile: str | None) -> str:
    """`KONVEYER_TOKEN` when it is set, otherwise the token saved under the profile."""
    return os.environ.get("KONVEYER_TOKEN") or saved_token(state, profile)


def saved_token(state: Path, profile: str | None) -> str:
    """The token of `profile`; of the default one when None."""
    path = _path(state, profile or DEFAULT)
    if not path.is_file():
        raise NotSignedIn(
            f"No token is saved under the profile '{profile or DEFAULT}'.",
            hint="set KONVEYER_TOKEN, or let an administrator run "
            "'konveyer people token NAME --save'",
        )
    return path.read_text().strip()


def _path(state: Path, profile: str) -> Path:
    return state / "tokens" / profile
