"""`konveyer release lead-time`: how long releases take, and where the time goes."""

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when


@click.command("lead-time")
@click.option(
    "--since",
    default="90d",
    show_default=True,
    help="A duration such as 30d or 36h, or a time such as 2026-01-01.",
)
@click.option("--application", help="Only releases of this application.")
@pass_context
def lead_time(context: Context, since: str, application: str | None) -> None:
    """From submission to production, in working days (Monday to Friday), against the goal.

    Of each stage the median over the releases that reached production since then, waiting and
    working apart.

    \b
    Example: konveyer release lead-time --since 2026-01-01 --application coupon-response
    """
    from konveyer.execution.releases.period import lead_times_since

    workspace = context.workspace
    goal_days = workspace.settings.releases.lead_time_days
    with workspace.catalog.reading() as session:
        context.reader(session)
        found = lead_times_since(session, since, application=application, goal_days=goal_days)
    if context.as_json:
        print_json(found)
        return
    click.echo(f"{when(found.since_us)} to {when(found.until_us)}, goal {goal_days:g} working days")
    if found.median_days is not None:
        click.echo(
            f"{len(found.arrivals)} reached production, half of them in {found.median_days:.1f} "
            f"working days, {found.within_goal} within the goal; {found.stopped} stopped."
        )
    rows = [
        (
            stage.stage,
            stage.releases,
            seconds(stage.waited_s),
            seconds(stage.worked_s),
            seconds(stage.longest_s),
        )
        for stage in found.stages
    ]
    columns = ("stage", "releases", "waited (median)", "worked (median)", "longest")
    print_table(columns, rows, empty="No release reached production in this time.")
    late = [
        (one.release, f"{one.application}/v{one.api_version}", one.author, f"{one.days:.1f}")
        for one in found.arrivals
        if one.days > goal_days
    ]
    if late:
        print_table(("over the goal", "url", "author", "working days"), late, empty="")
