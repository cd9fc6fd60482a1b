"""Jobs as they travel to other processes, and their results as they come back.

Every process that runs a job imports this: it needs no more than the job itself.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from konveyer.core.errors import KonveyerError

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of a job, as a result: the same would come of trying again."""

    error: KonveyerError


@dataclass(frozen=True, slots=True)
class OnItem(Generic[S, T]):
    """A job on one item of an executor, with a result that can travel."""

    job: Callable[[S], T]

    def __call__(self, item: S) -> bytes:
        try:
            return pickle.dumps(self.job(item))
        except KonveyerError as error:
            return pickle.dumps(Refused(error))


@dataclass(frozen=True, slots=True)
class OnRows(Generic[T]):
    """A job on the rows of one partition, in the form that Spark calls."""

    job: Callable[[Iterator[pa.RecordBatch]], T]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        packed = OnItem(self.job)(batches)
        yield pa.RecordBatch.from_pydict({"packed": [packed]})


def together(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """The places of results that are fetched at once: neighbours, of `most` bytes in all, or one.

    >>> list(together([3, 3, 9, 1, 2, 3], most=6))
    [[0, 1], [2], [3, 4, 5]]
    """
    places: list[int] = []
    for place, size in enumerate(sizes):
        if places and size + sum(sizes[one] for one in places) > most:
            yield places
            places = []
        places.append(place)
    if places:
        yield places


def unpacked(packed: bytes) -> Any:
    result = pickle.loads(packed)  # noqa: S301 - our own, from our own executors
    if isinstance(result, Refused):
        raise result.error
    return result
