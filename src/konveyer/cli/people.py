"""`konveyer people`: accounts, roles and tokens."""

import click

from konveyer.cli.context import LIMIT, Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import when

ROLES = (
    "data-scientist",
    "data-engineer",
    "ml-engineer",
    "qa",
    "analyst",
    "producer",
    "administrator",
)


@click.group()
def people() -> None:
    """Accounts, their roles and their tokens."""


@people.command("list")
@pass_context
def list_(context: Context) -> None:
    """Who has an account, and with which roles.

    \b
    Example: konveyer people list
    """
    from konveyer.access.people import list_people

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = list_people(session)
    if context.as_json:
        print_json([{"name": person.name, "roles": sorted(person.roles)} for person in found])
        return
    rows = [(person.name, ", ".join(sorted(person.roles))) for person in found]
    print_table(("name", "roles"), rows, empty="No accounts yet.")


@people.command()
@click.argument("name")
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="May repeat."
)
@pass_context
def add(context: Context, name: str, roles: tuple[str, ...]) -> None:
    """Make an account.

    \b
    Example: konveyer people add ana --role data-scientist
    """
    from konveyer.access.people import add_person
    from konveyer.access.roles import Role

    with context.workspace.catalog.transaction() as session:
        actor = context.actor(session)
        person = add_person(session, actor, name, frozenset(Role(role) for role in roles))
    if context.as_json:
        print_json({"name": person.name, "roles": sorted(person.roles)})
        return
    click.echo(f"{person.name} has an account. Give a token: konveyer people token {person.name}")


@people.command()
@click.argument("name")
@click.option("--days", default=90, show_default=True, help="How long it is valid.")
@click.option("--save", is_flag=True, help="Keep it in this workspace as the profile NAME.")
@pass_context
def token(context: Context, name: str, days: int, save: bool) -> None:
    """Issue a token. It is shown once; the catalog keeps only its digest.

    \b
    Example: konveyer people token ana --days 30 --save
    """
    from konveyer.access.profiles import save_token
    from konveyer.access.tokens import issue_token

    with context.workspace.catalog.transaction() as session:
        actor = context.actor(session)
        issued = issue_token(session, actor, name, valid_days=days)
    if save:
        path = save_token(context.settings.state, name, issued)
    if context.as_json:
        print_json({"name": name, "profile": name} if save else {"name": name, "token": issued})
    elif save:
        click.echo(f"Saved in {path}. Act as {name}: konveyer --profile {name} ...")
    else:
        click.echo(issued)


@people.command()
@click.argument("name", default="admin")
@pass_context
def recover(context: Context, name: str) -> None:
    """Issue a token to the administrator NAME without having one.

    For the person who holds the catalog's database, when every administrator's token has expired
    or was revoked. Needs no token; it is on record. The token is saved as the default profile.

    \b
    Example: konveyer people recover admin
    """
    from konveyer.access.people import recover_administrator
    from konveyer.access.profiles import DEFAULT, save_token
    from konveyer.access.tokens import issue_token

    with context.workspace.catalog.transaction() as session:
        issued = issue_token(session, recover_administrator(session, name), name)
    path = save_token(context.settings.state, DEFAULT, issued)
    if context.as_json:
        print_json({"name": name, "profile": DEFAULT})
        return
    click.echo(f"Saved in {path}.")


@people.command()
@click.argument("name")
@pass_context
def revoke(context: Context, name: str) -> None:
    """Revoke every token of a person.

    \b
    Example: konveyer people revoke ana
    """
    from konveyer.access.tokens import revoke_tokens

    with context.workspace.catalog.transaction() as session:
        revoked = revoke_tokens(session, context.actor(session), name)
    if context.as_json:
        print_json({"name": name, "revoked": revoked})
        return
    click.echo(f"{revoked} token(s) of {name} no longer work.")


@people.command()
@click.option("--limit", type=LIMIT, default=50, show_default=True)
@click.option("--subject", help="Only changes of this thing.")
@pass_context
def audit(context: Context, limit: int, subject: str | None) -> None:
    """What was changed, when, and by whom; newest first.

    \b
    Example: konveyer people audit --subject basket_activity
    """
    from konveyer.catalog.audit import entries

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = entries(session, subject=subject, limit=limit)
    if context.as_json:
        print_json(found)
        return
    rows = [
        (when(e.at_us), e.actor, e.action, e.detail.get("stage", ""), e.kind, e.subject)
        for e in found
    ]
    columns = ("when", "who", "action", "stage", "kind", "subject")
    print_table(columns, rows, empty="No changes yet.")
