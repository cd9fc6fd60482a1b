"""`konveyer init`: a new workspace."""

from pathlib import Path

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json

ADMINISTRATOR = "admin"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--example", help="Fill it with an example on real data: coupon-response.")
@click.option("--upgrade", is_flag=True, help="Bring the catalog of an old workspace up to date.")
@pass_context
def init(context: Context, folder: Path, example: str | None, upgrade: bool) -> None:
    """Make FOLDER a workspace.

    Writes konveyer.toml, a definitions folder and a model project, creates the catalog, and saves
    the token of its one administrator in state/tokens.

    \b
    Example: konveyer init shop --example coupon-response
    """
    from konveyer.access.actor import Actor
    from konveyer.access.people import add_first_administrator
    from konveyer.access.profiles import DEFAULT, save_token
    from konveyer.access.tokens import issue_token
    from konveyer.core.settings import load_settings
    from konveyer.development.scaffold import new_workspace
    from konveyer.wiring import create_catalog

    if upgrade:
        create_catalog(load_settings(folder)).close()
        click.echo("The catalog is up to date.")
        return
    with new_workspace(folder, example=example) as (draft, rows):
        settings = load_settings(draft)
        catalog = create_catalog(settings)
        with catalog.transaction() as session:
            person = add_first_administrator(session, ADMINISTRATOR)
            token = issue_token(session, Actor(person.name, person.roles), person.name)
        catalog.close()
        save_token(settings.state, DEFAULT, token)
    root = folder.resolve()
    if context.as_json:
        print_json({"workspace": str(root), "administrator": person.name, "data": rows})
        return
    click.echo(f"Workspace {root}")
    for name, count in rows.items():
        click.echo(f"  data/{name}.parquet  {count:,} rows")
    click.echo(f"Next: cd {folder} && konveyer apply && konveyer etl run")
