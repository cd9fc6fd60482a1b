"""Room for requests that wait: for a model in a process of its own, for a store on a network.

A version may take as much of it as is left. One that hangs takes half, of two a third each, and so
on: there is always room for another one, and it needs no setting.
"""

from konveyer.execution.serving.errors import Overloaded


class Room:
    """Of one process. Called from its event loop."""

    def __init__(self, most: int = 512) -> None:
        self._most, self._taken = most, 0

    @property
    def left(self) -> int:
        return self._most - self._taken

    def take(self) -> None:
        self._taken += 1

    def give_back(self) -> None:
        self._taken -= 1


class Portion:
    """What requests to one version take of the room. Use as a context around what waits.

    >>> hanging, other = (lambda room: (Portion(room), Portion(room)))(Room(4))
    >>> with hanging, hanging, other:
    ...     with hanging:
    ...         pass
    Traceback (most recent call last):
    konveyer.execution.serving.errors.Overloaded: 2 requests to this version wait for its model ...
    """

    def __init__(self, room: Room) -> None:
        self._room, self._taken = room, 0

    def __enter__(self) -> None:
        if self._taken >= self._room.left:
            raise Overloaded(
                f"{self._taken} requests to this version wait for its model or its online store.",
                hint="send it again after the seconds in Retry-After",
            )
        self._taken += 1
        self._room.take()

    def __exit__(self, *_: object) -> None:
        self._taken -= 1
        self._room.give_back()
