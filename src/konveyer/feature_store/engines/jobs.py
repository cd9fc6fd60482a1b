"""Jobs as they travel to other processes, and their results as they come back.

Every process that runs a job imports this: it needs no more than the job itself.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pyarrow as pa

from konveyer.core.errors import KonveyerError

_MOST_AT_ONCE = 2**20
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


def unless_large(packed: bytes) -> bytes | None:
    """None of a result that is to be fetched by itself."""
    return packed if len(packed) <= _MOST_AT_ONCE else None


def unpacked(packed: bytes) -> Any:
    result = pickle.loads(packed)  # noqa: S301 - our own, from our own executors
    if isinstance(result, Refused):
        raise result.error
    return result
