"""What a person who waits is shown: what has ended so far, and bars of what has not."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from konveyer.core.progress import Progress, unseen

_LOOK_EVERY_S = 0.3


@contextmanager
def bars(*, quiet: bool) -> Iterator[Progress]:
    """A bar for each thing that is under way, on a terminal alone; they go when the block ends."""
    if quiet or not sys.stderr.isatty():
        yield unseen
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    class Cursor(Console):
        """One whose cursor stays: a run that is broken off could not show it again."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002
            return False

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Cursor(stderr=True, markup=False)
    with Bars(*columns, TimeElapsedColumn(), console=console, transient=True) as shown:
        tasks = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done, total=of, visible=done < of)

        yield tell


@contextmanager
def told_when_interrupted(state: str) -> Iterator[None]:
    """On Ctrl-C in the block say in what `state` things are left, and what to do."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted. {state} Give the same command to do it.", err=True)
        raise


@contextmanager
def told_as_it_happens(
    lines: Callable[[], Sequence[str]],
    *,
    quiet: bool,
    under_way: Callable[[], Sequence[tuple[str, int, int]]] = list,
) -> Iterator[None]:
    """Print the lines that the block adds to `lines` as they come.

    `lines` gives all lines so far, in order; on a terminal there is a bar for each of what
    `under_way` gives (what, how much is done, of how much). Both are called from a thread of
    its own.
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

    def keep_telling(progress: Progress) -> None:
        shown: dict[str, int] = {}
        while not ended.wait(_LOOK_EVERY_S):
            tell()
            now = {what: (done, of) for what, done, of in under_way()}
            for what in shown.keys() - now.keys():
                progress(what, shown[what], shown[what])
            for what, (done, of) in now.items():
                progress(what, done, of)
            shown = {what: of for what, (_, of) in now.items()}

    with bars(quiet=quiet) as progress:
        teller = threading.Thread(target=keep_telling, args=(progress,), daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()
            tell()
