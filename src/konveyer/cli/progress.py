"""Lines for a person who waits: what has ended so far in a run that takes a while."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

_LOOK_EVERY_S = 0.3


@contextmanager
def told_as_it_happens(lines: Callable[[], Sequence[str]], *, quiet: bool) -> Iterator[None]:
    """Print the lines that the block adds to `lines` as they come.

    `lines` gives all lines so far, in order; it is called from a thread of its own.
    """
    if quiet:
        yield
        return
    told = len(lines())
    ended = threading.Event()

    def tell() -> None:
        nonlocal told
        for line in lines()[told:]:
            click.echo(f"  {line}")
            told += 1

    def keep_telling() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            tell()

    teller = threading.Thread(target=keep_telling, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        tell()
