"""Instants and durations as people read them."""

from datetime import timedelta

from konveyer.core.clock import format_us


def when(instant_us: int | None) -> str:
    """To the second: `2017-10-01T00:00:00Z`, or nothing."""
    return "" if instant_us is None else format_us(instant_us // 1_000_000 * 1_000_000)


def size(value_bytes: int) -> str:
    """Bytes as people read them.

    >>> size(900), size(3_500_000)
    ('900 B', '3.5 MB')
    """
    value = float(value_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(value: float | None) -> str:
    """A duration as people read it.

    >>> seconds(0.0421), seconds(75.0)
    ('42 ms', '1 m 15 s')
    """
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    return str(timedelta(seconds=round(value)))
