"""Running a coroutine at once, for as long as it does not wait.

A compiled model with a local online store never waits: its request is answered without a task and
without another turn of the event loop. (`asyncio.eager_task_factory` does this from Python 3.12.)
"""

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Waiting(Exception):
    """The coroutine waits; `rest` is what remains of it, to be made a task."""

    def __init__(self, rest: Coroutine[Any, Any, Any]) -> None:
        super().__init__()
        self.rest = rest


def run_at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result; raises `Waiting` when the coroutine waits for something first.

    >>> async def two() -> int:
    ...     return 2
    >>> run_at_once(two())
    2
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise Waiting(_rest(coroutine, awaited))


async def _rest(coroutine: Coroutine[Any, Any, T], awaited: Any) -> T:
    result: T = await _Resumed(coroutine, awaited)
    return result


class _Resumed:
    """Waits for what the coroutine waits for already, then goes on with it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coroutine, self._awaited = coroutine, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        awaited = self._awaited
        try:
            while True:
                try:
                    yield awaited
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
                    awaited = self._coroutine.throw(error)
                else:
                    awaited = self._coroutine.send(None)
        except StopIteration as stop:
            return stop.value
