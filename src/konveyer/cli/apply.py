"""`konveyer apply`: make the definitions folder what holds."""

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table

_SIGNS = {"add": "+", "change": "~", "describe": "i", "remove": "-"}


@click.command()
@click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
@pass_context
def apply(context: Context, dry_run: bool) -> None:
    """Compare the definitions folder with the registry, check it against real data, apply it.

    Everything is applied in one transaction, or nothing is. Applying twice changes nothing.

    \b
    Example: konveyer apply --dry-run
    """
    from konveyer.feature_store.registry.apply import apply as apply_plan
    from konveyer.feature_store.registry.check import check_definitions
    from konveyer.feature_store.registry.discover import load_definitions
    from konveyer.feature_store.registry.lookup import active_state, reformed_sources
    from konveyer.feature_store.registry.plan import plan_apply
    from konveyer.feature_store.registry.state import registry_state

    settings, workspace = context.settings, context.workspace
    wanted = registry_state(load_definitions(settings.root / settings.workspace.definitions))
    checked = check_definitions(wanted, workspace.engine, workspace.places)
    with workspace.catalog.transaction() as session:
        actor = context.actor(session)
        current = active_state(session)
        reformed = reformed_sources(session, current, checked.sources)
        plan = plan_apply(current, checked.state, reformed)
        if plan.changes and not dry_run:
            apply_plan(session, actor, plan, checked)
    if context.as_json:
        print_json({"changes": plan.changes, "unchanged": plan.unchanged, "applied": not dry_run})
        return
    rows = [
        (_SIGNS[change.action], change.kind, change.name, change.before, change.after)
        for change in plan.changes
    ]
    print_table(
        ("", "kind", "name", "from", "to"), rows, empty="Nothing to change: the registry is equal."
    )
    if rows:
        done = "would be applied (dry run)" if dry_run else "applied"
        click.echo(f"{len(rows)} change(s) {done}, {plan.unchanged} unchanged.")
    if any(change.action != "describe" for change in plan.changes) and not dry_run:
        click.echo("Next: konveyer etl run")
