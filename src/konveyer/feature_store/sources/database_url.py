"""The URL of a database, with its secrets taken from the environment and kept out of words."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from konveyer.core.plugins import scheme_of
from konveyer.core.variables import filled, variables_of

_PASSWORDS = re.compile(r"://[^:/]*:(.*)@|[?&]\w*password=([^&]*)")
_SPECIAL = re.compile(r"[@:/?#\[\] ]")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL ready to connect to; it is neither shown in `repr` nor left in what `masked` gives."""

    full: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def scheme(self) -> str:
        return scheme_of(self.full)

    def masked(self, text: str) -> str:
        """`text` (a driver's message, say) without the URL, its password and the variables."""
        for secret in (self.full, *sorted(self.secrets, key=len, reverse=True)):
            text = text.replace(secret, "***")
        return text


def database_url(name: str, url: str, environment: Mapping[str, str]) -> DatabaseUrl:
    """`[databases.NAME] url` with each `${VARIABLE}` replaced, quoted as a part of a URL is.

    >>> url = database_url("crm", "postgresql://etl:${PW}@db/crm", {"PW": "a/b"})
    >>> url.full
    'postgresql://etl:a%2Fb@db/crm'
    >>> url.masked("no entry with a/b")
    'no entry with ***'
    >>> url
    DatabaseUrl()
    """
    values = variables_of(url, environment, setting=f"databases.{name}")
    full = filled(url, values)
    return DatabaseUrl(full, tuple(_secrets(full, values.values())))


def _secrets(url: str, values: Iterable[str]) -> set[str]:
    """The values and the passwords in `url`, as they stand there, as they are meant, and in pieces:
    a driver that takes a bad URL apart at another place than we do may show a piece.
    """
    found = _PASSWORDS.findall(url)
    whole = {*values, *(password for pair in found for password in pair if password)}
    pieces = {piece for password in whole for piece in _SPECIAL.split(password) if len(piece) > 2}
    return {
        form
        for secret in whole | pieces
        for form in (secret, unquote(secret), quote(secret, safe=""))
    }
