"""How answers look in a terminal: tables, lines and errors; JSON when scripts ask."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from textwrap import indent

import click
import msgspec

from konveyer.core.errors import KonveyerError


def print_json(value: object) -> None:
    """One JSON value on one line of standard output."""
    click.echo(msgspec.json.encode(value, order="deterministic", enc_hook=_plain).decode())


def _plain(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def print_error(error: KonveyerError, *, as_json: bool) -> None:
    """Code, message and next step on standard error, or one JSON object on standard output."""
    if as_json:
        print_json({"error": error.as_dict()})
        return
    click.secho(f"error {error.code}: ", fg="red", bold=True, err=True, nl=False)
    click.echo(error.message, err=True)
    if "traceback" in error.detail:
        click.echo(indent(str(error.detail["traceback"]), "  | "), err=True)
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
