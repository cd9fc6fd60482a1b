"""Asking a bundle's model itself, in this process, as a node would."""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from konveyer.bundle.store import Bundle
from konveyer.execution.serving.families import families_of
from konveyer.execution.serving.lanes import lane_of

Rows = Sequence[Sequence[Any]]
Answer = Callable[[Rows], list[tuple[Any, ...]]]


@contextmanager
def answering(
    bundle: Bundle, environments: Path, secrets: frozenset[str] = frozenset()
) -> Iterator[Answer]:
    """From rows of features, in the order of the service, to a tuple of outputs for each.

    An isolated model is asked in a process of its own, whose environment is in `environments`; it
    does not see the variables `secrets`.
    """
    with families_of(bundle, environments, secrets) as families, asyncio.Runner() as runner:
        lane = lane_of(bundle, families)
        try:
            yield lambda rows: runner.run(lane.predict(rows)) if rows else []
        finally:
            lane.close()
            # What was closed goes with the next turns of the loop.
            runner.run(asyncio.sleep(0.01))


def distance(one: Sequence[Any], other: Sequence[Any]) -> float:
    """How far apart two answers are: the largest difference of their numbers.

    It is a share of a number beyond 1, and absolute below. Infinite where one has what the other
    has not: another text, a null, another length.

    >>> distance((0.25, "a"), (0.5, "a")), distance((300.0,), (200.0,)), distance((0.25,), (None,))
    (0.25, 0.5, inf)
    """
    if len(one) != len(other):
        return math.inf
    return max((_apart(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def _apart(one: Any, other: Any) -> float:
    if one == other or (one != one and other != other):
        return 0.0
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    apart = abs(one - other) / max(1.0, abs(other)) if numbers else math.inf
    return math.inf if math.isnan(apart) else apart
