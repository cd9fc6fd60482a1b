"""What is due now: a pure function of a cadence, when it last began, and the time.

Periods are whole multiples of the cadence since 1970 in UTC, so every process means the same ones:
`1d` begins at midnight. A run that is due has an id that names its period, so that asking for it
again starts nothing new.
"""

from collections.abc import Callable, Sequence

from konveyer.core.clock import from_us
from konveyer.pipeline.flow import Run

# Who is on record for what no person started.
SCHEDULE = "schedule"

# Gives the runs that are to be started now, when it is told which have not ended yet.
Due = Callable[[Sequence[Run]], Sequence[Run]]


def period_us(every_us: int, now_us: int) -> int:
    """When the period began in which `now_us` lies.

    >>> period_us(10, 25), period_us(10, 30), period_us(10, -1)
    (20, 30, -10)
    """
    return now_us // every_us * every_us


def is_due(every_us: int, last_us: int | None, now_us: int) -> bool:
    """Whether nothing has begun in this period. Periods that were missed are not made up for.

    >>> is_due(10, None, 25), is_due(10, 19, 25), is_due(10, 20, 25)
    (True, True, False)
    """
    return last_us is None or last_us < period_us(every_us, now_us)


def next_us(every_us: int, last_us: int | None, now_us: int) -> int:
    """From when on it is due: now, or the beginning of the next period.

    >>> next_us(10, 19, 25), next_us(10, 20, 25)
    (25, 30)
    """
    if is_due(every_us, last_us, now_us):
        return now_us
    return period_us(every_us, now_us) + every_us


def period_name(every_us: int, now_us: int) -> str:
    """The period's beginning as a part of an id, to the second.

    >>> period_name(3_600_000_000, 3_700_000_000)
    '19700101T010000Z'
    """
    return from_us(period_us(every_us, now_us)).strftime("%Y%m%dT%H%M%SZ")
