"""Instants are UTC microseconds since 1970 (`int`); a naive time means UTC."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from konveyer.core.errors import KonveyerError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class BadInstant(KonveyerError):
    """A text that is not an ISO 8601 instant."""

    code = "bad_instant"


def now_us() -> int:
    """Wall time, for records of what people and programs did."""
    return time.time_ns() // 1_000


def to_us(moment: datetime) -> int:
    """Exact for every datetime (integer arithmetic, no float seconds).

    >>> to_us(datetime(1970, 1, 2))
    86400000000
    """
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - _EPOCH) // _MICROSECOND


def from_us(instant_us: int) -> datetime:
    """The inverse of `to_us`, always in UTC."""
    return _EPOCH + timedelta(microseconds=instant_us)


def parse_instant(text: str) -> int:
    """ISO 8601 text to microseconds.

    >>> parse_instant("1970-01-01T00:00:01Z")
    1000000
    """
    try:
        return to_us(datetime.fromisoformat(text))
    except ValueError as error:
        raise BadInstant(
            f"'{text}' is not a time.", hint="write it as 2017-10-01T00:00:00Z"
        ) from error


def format_us(instant_us: int) -> str:
    """ISO 8601 in UTC, to the second when there is nothing finer.

    >>> format_us(1_000_000)
    '1970-01-01T00:00:01Z'
    """
    return from_us(instant_us).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class FeatureClock:
    """Where feature time stands: the wall clock, or one instant when history is replayed.

    Feature time decides which events an ETL run may see and whether a value read online is past
    its TTL. Records of what people did always use the wall clock.

    >>> FeatureClock(fixed_us=5).now_us()
    5
    """

    fixed_us: int | None = None

    def now_us(self) -> int:
        return now_us() if self.fixed_us is None else self.fixed_us
