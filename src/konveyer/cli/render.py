"""How answers look in a terminal: tables, lines and errors; JSON when scripts ask."""

import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta

import click
import msgspec

from konveyer.core.clock import format_us
from konveyer.core.errors import KonveyerError


def print_json(value: object) -> None:
    """One JSON value on one line of standard output."""
    click.echo(msgspec.json.encode(value, order="deterministic").decode())


def print_error(error: KonveyerError, *, as_json: bool) -> None:
    """Code, message and next step on standard error; with `--json` one object to standard output."""
    if as_json:
        print_json({"error": error.as_dict()})
        return
    click.secho(f"error {error.code}: ", fg="red", bold=True, err=True, nl=False)
    click.echo(error.message, err=True)
    if error.hint:
        click.echo(f"  next: {error.hint}", err=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Rows under headings, or the sentence `empty` (what to do to get the first row)."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    if not table.row_count:
        click.echo(empty)
        return
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False).print(table)


def when(instant_us: int | None) -> str:
    """To the second: `2017-10-01T00:00:00Z`, or nothing."""
    return "" if instant_us is None else format_us(instant_us // 1_000_000 * 1_000_000)


def seconds(value: float | None) -> str:
    """A duration as people read it.

    >>> seconds(0.0421), seconds(75.0)
    ('42 ms', '1 m 15 s')
    """
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} m {rest} s"
    return str(timedelta(seconds=round(value)))
