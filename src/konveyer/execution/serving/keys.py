"""Who calls, and what he may call: API keys, checked without a database."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from konveyer.core.clock import format_us, now_us
from konveyer.execution.serving.desired import ApiKey
from konveyer.execution.serving.errors import (
    KeyExpired,
    KeyMissing,
    KeyNotAllowed,
    KeyUnknown,
    RateExceeded,
    told_nothing,
)
from konveyer.execution.serving.rates import Limit, SharedRates

ANYBODY = ""
_BEARER = b"bearer "
_HINT = "send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; 'konveyer key create' makes one"


@dataclass(frozen=True, slots=True)
class _Holder:
    key: ApiKey
    applications: frozenset[str]
    limit: Limit | None


class KeyRing:
    """The keys of an environment. Nothing is read or written for a check but shared memory.

    Without `are_told` they are not known yet: a key that is not among them may be a good one.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey],
        rates: SharedRates,
        *,
        are_required: bool,
        are_told: bool = True,
    ) -> None:
        self._are_required, self._are_told = are_required, are_told
        self._holders = {
            bytes.fromhex(key.digest): _Holder(
                key,
                frozenset(key.applications),
                None if key.rate_per_s is None else rates.limit(key.digest, key.rate_per_s),
            )
            for key in keys
        }

    def caller(self, headers: dict[bytes, bytes], application: str | None) -> str:
        """The name of the key that a request carries; `ANYBODY` where keys are not required.

        Raises when it may not call `application`, or not now; None is no application in
        particular. A key that is sent is checked also where none is required.
        """
        holder = self._admitted(headers, application)
        return ANYBODY if holder is None else holder.key.name

    def applications(self, headers: dict[bytes, bytes]) -> frozenset[str] | None:
        """What the request's key may call; None is everything. Raises like `caller`."""
        holder = self._admitted(headers, None)
        return None if holder is None else holder.applications or None

    def _admitted(self, headers: dict[bytes, bytes], application: str | None) -> _Holder | None:
        """Who sent the request, after all checks; None where nobody has to say."""
        sent = headers.get(b"x-api-key") or _bearer(headers.get(b"authorization", b""))
        if not sent:
            if self._are_required:
                raise KeyMissing("The request has no API key.", hint=_HINT)
            return None
        holder = self._holders.get(hashlib.sha256(sent).digest())
        if holder is None:
            if not self._are_told:
                raise told_nothing()
            raise KeyUnknown("This API key is not known here.", hint=_HINT)
        key = holder.key
        if key.expires_us is not None and key.expires_us <= now_us():
            raise KeyExpired(
                f"The API key '{key.name}' expired {format_us(key.expires_us)}.",
                hint="ask for a new one: konveyer key create NAME",
            )
        allowed = holder.applications
        if application is not None and allowed and application not in allowed:
            raise KeyNotAllowed(
                f"The API key '{key.name}' may not call '{application}'.",
                hint=f"it may call {', '.join(key.applications)}",
            )
        wait_ns = 0 if holder.limit is None else holder.limit.wait_ns()
        if wait_ns:
            raise RateExceeded(
                f"The API key '{key.name}' may be used {key.rate_per_s:g} times a second.",
                hint="send it again after the seconds in Retry-After",
                retry_after_s=wait_ns / 1e9,
            )
        return holder


def _bearer(header: bytes) -> bytes:
    return header[len(_BEARER) :].strip() if header[: len(_BEARER)].lower() == _BEARER else b""
