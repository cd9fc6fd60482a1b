"""`konveyer release diff`: what a release changes, for its reviewer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table

if TYPE_CHECKING:
    from konveyer.execution.releases.difference import Change, TextChange

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("release_id", metavar="RELEASE")
@pass_context
def diff(context: Context, release_id: str) -> None:
    """What RELEASE changes: code, features, contract, parameters, metrics and environment.

    It is compared with the version that production serves, or served just before it.

    \b
    Example: konveyer release diff rel-01a20f41cfdb3908c07b
    """
    from konveyer.execution.releases.compare import compare

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        context.reader(session)
    found = compare(workspace.catalog, workspace.bundles, release_id)
    if context.as_json:
        print_json(found)
        return
    against = found.against or "nothing: production serves no version of it yet"
    click.secho(f"{found.release} against {against}", bold=True)
    _print_changes("Features", found.features)
    _print_changes("Contract", found.contract)
    _print_changes("Parameters", found.parameters)
    _print_changes("Metrics", found.metrics)
    _print_changes("Environment", found.environment)
    _print_texts("Definition of", found.definitions)
    _print_texts("Code", found.code)


def _print_changes(title: str, changes: Iterable["Change"]) -> None:
    rows = [(one.name, one.before or "-", one.after or "-") for one in changes]
    click.secho(f"\n{title}", bold=True)
    print_table(("", "before", "after"), rows, empty="no change")


def _print_texts(title: str, changes: Iterable["TextChange"]) -> None:
    for one in changes:
        click.secho(f"\n{title} {one.name}", bold=True)
        for line in one.diff.splitlines():
            click.secho(line, fg=_COLOURS.get(line[:1]))
