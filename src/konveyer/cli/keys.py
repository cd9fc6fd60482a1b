"""`konveyer key`: the API keys that systems call models with."""

import click
import msgspec

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.errors import did_you_mean
from konveyer.core.wording import when


@click.group()
def key() -> None:
    """API keys: what systems call models with."""


@key.command()
@click.argument("name")
@click.option(
    "--application", "applications", multiple=True, help="What it may call. May repeat; else all."
)
@click.option("--environment", default="prod", show_default=True)
@click.option("--rate", type=float, help="How many requests a second (default: no limit).")
@click.option("--days", default=365, show_default=True, help="How long it is valid.")
@click.option("--save", is_flag=True, help="Keep it in state/keys instead of showing it.")
@pass_context
def create(
    context: Context,
    name: str,
    applications: tuple[str, ...],
    environment: str,
    rate: float | None,
    days: int,
    save: bool,
) -> None:
    """Make a key for the system NAME. It is shown once; the catalog keeps only its digest.

    Nodes know it within a second.

    \b
    Example: konveyer key create till --application coupon-response --rate 200
    """
    from konveyer.access.api_keys import KeyTerms, create_key
    from konveyer.access.profiles import save_api_key
    from konveyer.execution.releases.live import publish_desired
    from konveyer.execution.releases.records import submitted_applications

    context.settings.environment(environment)
    workspace = context.workspace
    terms = KeyTerms(
        name=name,
        environment=environment,
        applications=applications,
        rate_per_s=rate,
        valid_days=days,
    )
    with workspace.catalog.transaction() as session:
        made = create_key(session, context.actor(session), terms)
        known = submitted_applications(session)
    for unknown in sorted({*applications} - {*known}):
        close = did_you_mean(unknown, known, otherwise="it opens what is released later.")
        click.echo(f"Note: nothing was submitted for '{unknown}' yet: {close}", err=True)
    publish_desired(workspace.catalog, workspace.storage, environment)
    shown = str(save_api_key(context.settings.state, name, environment, made)) if save else made
    if context.as_json:
        what = "file" if save else "key"
        print_json({"name": name, "environment": environment, what: shown})
    else:
        click.echo(f"Saved in {shown}." if save else shown)


@key.command("list")
@pass_context
def list_(context: Context) -> None:
    """All keys, without the keys themselves.

    \b
    Example: konveyer key list
    """
    from konveyer.access.api_keys import list_keys

    with context.workspace.catalog.reading() as session:
        found = list_keys(session, context.actor(session))
    if context.as_json:
        records = [{"id": one.id, **msgspec.to_builtins(one)} for one in found]
        for record in records:
            del record["digest"]
        print_json(records)
        return
    rows = [
        (
            one.name,
            one.id,
            one.environment,
            ", ".join(one.applications) or "all",
            "" if one.rate_per_s is None else f"{one.rate_per_s:g}/s",
            "never" if one.expires_us is None else when(one.expires_us),
            "" if one.revoked_us is None else when(one.revoked_us),
        )
        for one in found
    ]
    columns = ("name", "id", "environment", "applications", "rate", "expires", "revoked")
    print_table(columns, rows, empty="No keys yet. Make one: konveyer key create NAME")


@key.command()
@click.argument("name")
@click.option("--id", "key_id", default="", help="Only the key whose id begins so.")
@click.option("--environment", help="Only its keys of this environment (default: of all).")
@pass_context
def revoke(context: Context, name: str, key_id: str, environment: str | None) -> None:
    """Revoke the keys of the system NAME, or one of them.

    Nodes refuse them within a second.

    \b
    Example: konveyer key revoke till
    """
    from konveyer.access.api_keys import revoke_keys
    from konveyer.execution.releases.live import publish_desired

    if environment is not None:
        context.settings.environment(environment)
    workspace = context.workspace
    with workspace.catalog.transaction() as session:
        revoked = revoke_keys(session, context.actor(session), name, key_id, environment)
    for changed in sorted({one.environment for one in revoked}):
        publish_desired(workspace.catalog, workspace.storage, changed)
    if context.as_json:
        print_json({"name": name, "revoked": [one.id for one in revoked]})
    else:
        click.echo(f"{len(revoked)} key(s) of {name} revoked.")
