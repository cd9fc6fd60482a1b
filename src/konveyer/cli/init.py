"""`konveyer init`: a new workspace."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json

if TYPE_CHECKING:
    from konveyer.catalog.session import Catalog
    from konveyer.core.settings import Settings

ADMINISTRATOR = "admin"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option("--example", help="Fill it with an example on real data: coupon-response.")
@click.option("--upgrade", is_flag=True, help="Bring the catalog of an old workspace up to date.")
@pass_context
def init(context: Context, folder: Path, example: str | None, upgrade: bool) -> None:
    """Make FOLDER a workspace.

    Writes konveyer.toml, a definitions folder and a model project, creates the catalog, and saves
    the token of its one administrator in state/tokens. With --upgrade it also prepares a new, empty
    database that konveyer.toml was pointed at.

    \b
    Example: konveyer init shop --example coupon-response
    """
    from konveyer.core.settings import check_root, load_settings
    from konveyer.development.scaffold import new_workspace
    from konveyer.wiring import create_catalog

    if upgrade:
        settings = load_settings(folder if folder != Path() else context.start)
        catalog = create_catalog(settings)
        made = _first_administrator(catalog, settings)
        catalog.close()
        if context.as_json:
            print_json({"workspace": str(settings.root), "administrator_made": made})
            return
        click.echo("The catalog is up to date.")
        if made:
            click.echo(f"It had no people: '{ADMINISTRATOR}' is its administrator.")
        return
    check_root(folder.resolve())
    with new_workspace(folder, example=example) as (draft, rows):
        settings = load_settings(draft)
        catalog = create_catalog(settings)
        _first_administrator(catalog, settings)
        catalog.close()
    root = folder.resolve()
    if context.as_json:
        print_json({"workspace": str(root), "administrator": ADMINISTRATOR, "data": rows})
        return
    click.echo(f"Workspace {root}")
    for name, count in rows.items():
        click.echo(f"  data/{name}.parquet  {count:,} rows")
    click.echo(f"Next: cd {shlex.quote(str(folder))}")
    if example:
        click.echo("      konveyer apply && konveyer etl run")
    else:
        click.echo("      write definitions into features/, then: konveyer apply")


def _first_administrator(catalog: "Catalog", settings: "Settings") -> bool:
    """Make the first person of a catalog that has none, and keep his token here."""
    from konveyer.access.actor import Actor
    from konveyer.access.people import add_first_administrator, list_people
    from konveyer.access.profiles import DEFAULT, save_token
    from konveyer.access.tokens import issue_token

    with catalog.transaction() as session:
        if list_people(session):
            return False
        person = add_first_administrator(session, ADMINISTRATOR)
        token = issue_token(session, Actor(person.name, person.roles), person.name)
    save_token(settings.state, DEFAULT, token)
    return True
