"""A catalog that fails now and then, and steps that record errors as the worker's do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from konveyer.catalog.session import Catalog
from konveyer.pipeline.flow import packed_error, unpacked_error


class SealedSteps:
    """Nothing interrupts them."""

    def step(self, _name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            raise unpacked_error(packed_error(error)) from error


@contextmanager
def failing(catalog: Catalog, *numbers: int) -> Iterator[list[int]]:
    """In the block the transactions of these numbers, the first is 1, find no database.

    Gives the numbers of those that were begun.
    """
    begun: list[int] = []

    def begin(_connection: object) -> None:
        begun.append(len(begun) + 1)
        if begun[-1] in numbers:
            raise OperationalError("BEGIN", {}, Exception("the database is away"))

    event.listen(catalog.engine, "begin", begin)
    try:
        yield begun
    finally:
        event.remove(catalog.engine, "begin", begin)
