"""The URL of a Redis server or cluster taken apart, without its driver.

`redis://user:password@host:6379/0?option=value`; `rediss:` is TLS, and `redis+cluster:` or
`rediss+cluster:` names any node of a cluster. Names of options are those of redis-py.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from konveyer.core.errors import did_you_mean
from konveyer.core.settings import BadSettings

_FORM = "write it as redis://user:password@host:6379/0, special characters percent-encoded"
_DEFAULT_PORT = 6379
_DEFAULT_PREFIX = "konveyer"
# Without braces, which would send all keys to one slot, and without what SCAN takes for a pattern.
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis is. `place` is for people; `connection` may hold a password, so never show it."""

    place: str
    prefix: str
    is_cluster: bool
    connection: Mapping[str, Any] = field(repr=False)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < inf:
        raise ValueError(text)
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _yes_or_no(text: str) -> bool:
    return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]


def _verification(text: str) -> str:
    return {"required": "required", "none": "none"}[text]


_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "max_connections": _count,
    "ssl_ca_certs": Path,
    "ssl_ca_path": Path,
    "ssl_certfile": Path,
    "ssl_keyfile": Path,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _yes_or_no,
}


def parse_redis_url(url: str, root: Path) -> RedisAddress:
    """Paths in options are taken from `root`. Nothing is connected, and no error shows a secret.

    >>> address = parse_redis_url("rediss://ana:secret@db.bank?ssl_ca_certs=ca.pem", Path("/w"))
    >>> address.place, address.connection["ssl_ca_certs"]
    ('rediss://db.bank:6379', '/w/ca.pem')
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        # Python's text quotes the part that it did not understand: perhaps of a password.
        raise BadSettings("[online] url is not a Redis URL.", hint=_FORM) from None
    if not host or "@" in parts.path + parts.query + parts.fragment:
        raise BadSettings("[online] url has no host that can be made out.", hint=_FORM)
    transport, _, suffix = parts.scheme.partition("+")
    if suffix not in ("", "cluster"):
        raise BadSettings(
            f"[online] url begins with '{parts.scheme}:', which is no kind of Redis.",
            hint=f"use {transport}: for one server, {transport}+cluster: for a cluster",
        )
    is_tls, is_cluster = transport == "rediss", suffix == "cluster"
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = options.pop("prefix", _DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise BadSettings(
            "[online] url has a prefix that cannot be used.",
            hint="use up to 64 letters, digits and any of _ . : -",
        )
    connection: dict[str, Any] = {"host": host, "port": port, **_options(options, root, is_tls)}
    if is_tls:
        connection["ssl"] = True
    if parts.username:
        connection["username"] = unquote(parts.username)
    if parts.password:
        connection["password"] = unquote(parts.password)
    if not is_cluster:
        connection["db"] = _database(parts)
    elif _database(parts):
        raise BadSettings(
            "A Redis cluster has no numbered databases.",
            hint="tell workspaces apart with ?prefix=NAME at the end of [online] url",
        )
    named = f"[{host}]" if ":" in host else host
    return RedisAddress(
        place=f"{parts.scheme}://{named}:{port}",
        prefix=prefix,
        is_cluster=is_cluster,
        connection=connection,
    )


def _database(parts: SplitResult) -> int:
    text = parts.path.strip("/")
    if text and not text.isdecimal():
        raise BadSettings(
            "[online] url names no database of Redis.", hint="end it with a number: /0"
        )
    return int(text or 0)


def _options(given: Mapping[str, str], root: Path, is_tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, text in given.items():
        parse = _OPTIONS.get(name)
        if parse is None:
            known = ("prefix", *_OPTIONS)
            raise BadSettings(
                f"[online] url has an unknown option '{name}'.",
                hint=did_you_mean(name, known, otherwise=f"known are {', '.join(known)}"),
            )
        if name.startswith("ssl_") and not is_tls:
            raise BadSettings(
                f"[online] url has '{name}' but does not use TLS.", hint="begin it with rediss:"
            )
        try:
            value = parse(text)
        except (ValueError, KeyError):
            raise BadSettings(
                f"[online] url has a value of '{name}' that cannot be used.",
                hint="docs/online-stores.md lists the options",
            ) from None
        found[name] = str(root / value) if isinstance(value, Path) else value
    return found
