"""Durations as people write them: `7d` is 168 hours, never calendar days."""

import re
from datetime import timedelta

from konveyer.feature_store.definitions.errors import BadDefinition

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_LONGEST = timedelta(days=36_525)
_MICROSECOND = timedelta(microseconds=1)
_TEXT = re.compile(r"(\d+)([dhms])")


def parse_duration(text: str, *, where: str) -> timedelta:
    """`7d`, `36h`, `15m` or `30s`; must be positive.

    >>> parse_duration("36h", where="refresh")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _TEXT.fullmatch(text)
    try:
        duration = int(match[1]) * _UNITS[match[2]] if match else timedelta()
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        raise BadDefinition(
            f"{where} is '{text}', which is over a hundred years.", hint="shorten it"
        )
    if duration <= timedelta():
        raise BadDefinition(
            f"{where} is '{text}', which is not a positive duration.",
            hint="write a whole number and one of d, h, m, s: 7d, 36h",
        )
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back.

    >>> format_duration(timedelta(hours=48))
    '2d'
    """
    for letter, unit in _UNITS.items():
        if duration % unit == timedelta():
            return f"{duration // unit}{letter}"
    raise BadDefinition(f"{duration} is finer than a second.", hint="use whole seconds")


def duration_us(duration: timedelta) -> int:
    return duration // _MICROSECOND
