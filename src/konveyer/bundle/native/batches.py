"""What waits for a model, taken in batches that keep its limit of time."""

import math
from collections import deque
from typing import Any, Generic, TypeVar

# A batch is expected to take this part of the limit: a slower one than expected is within it.
_PART = 1 / 4
C = TypeVar("C")


class Batches(Generic[C]):
    """Requests in the order in which they came, each with whom to answer.

    A request has `rows`, and `until`: nobody waits for its answer after that monotonic time. How
    long a row takes is learned from calls of the model, at first by small batches.

    >>> batches = Batches(limit_s=1.0)
    >>> for _ in range(60):
    ...     batches.add("caller", {"rows": [[1.0]], "until": 1.0})
    >>> len(batches.next(now_s=0.0))
    1
    >>> batches.took(0.01, rows=1)
    >>> len(batches.next(now_s=0.1))
    25
    >>> len(batches.next(now_s=0.9)), bool(batches)
    (0, False)
    """

    def __init__(self, limit_s: float) -> None:
        self._part_s = limit_s * _PART
        self._row_s: float | None = None
        self._waiting: deque[tuple[C, dict[str, Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, caller: C, request: dict[str, Any]) -> None:
        self._waiting.append((caller, request))

    def next(self, now_s: float) -> list[tuple[C, dict[str, Any]]]:
        """At least one request, unless none can be answered in time.

        Requests that would be answered too late are dropped. As what is expected may be wrong, one
        that has the time of a whole batch is never dropped.
        """
        row_s = self._row_s
        most_rows = 1 if row_s is None else math.ceil(self._part_s / row_s)
        waiting_rows = sum(len(request["rows"]) for _, request in self._waiting)
        batch_s = 0.0 if row_s is None else min(self._part_s, waiting_rows * row_s)
        batch: list[tuple[C, dict[str, Any]]] = []
        rows = 0
        while self._waiting:
            _, request = self._waiting[0]
            if request["until"] < now_s + batch_s:
                self._waiting.popleft()
                continue
            rows += len(request["rows"])
            if batch and rows > most_rows:
                break
            batch.append(self._waiting.popleft())
        return batch

    def took(self, seconds: float, rows: int) -> None:
        """Learn from a call. A slower one counts at once, a faster one by half: it may be luck."""
        row_s = max(seconds, 1e-6) / max(rows, 1)
        if self._row_s is not None:
            row_s = max(row_s, (self._row_s + row_s) / 2)
        self._row_s = row_s
