"""How far something has come, for whoever waits for it."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Is told what is under way, how many parts of it are done, and of how many.
Progress = Callable[[str, int, int], None]


def unseen(what: str, done: int, of: int) -> None:
    """Progress that nobody follows."""


def counted(results: Iterable[T], progress: Progress, what: str, of: int) -> Iterator[T]:
    """The same `results`, each told to `progress` once it is there.

    >>> list(counted("ab", lambda *told: print(*told), "buckets", 2))
    buckets 1 2
    buckets 2 2
    ['a', 'b']
    """
    for done, result in enumerate(results, 1):
        progress(what, done, of)
        yield result
