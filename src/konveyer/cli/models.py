"""`konveyer models`: what is served, where."""

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import when


@click.command()
@pass_context
def models(context: Context) -> None:
    """Live versions by environment, with the URL of a node that serves them.

    \b
    Example: konveyer --json models
    """
    from konveyer.execution.releases.records import live_versions
    from konveyer.execution.serving.presence import nodes_of

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = live_versions(session)
    storage = context.workspace.storage
    urls = {env: nodes_of(storage, env) for env in context.settings.environments}
    rows = [
        (
            live.environment,
            f"{live.application}/v{live.api_version}",
            live.release,
            when(live.since_us),
            f"{urls[live.environment][0].url}/{live.application}/v{live.api_version}/predict"
            if urls.get(live.environment)
            else "no node is up",
        )
        for live in found
    ]
    if context.as_json:
        names = ("environment", "model", "release", "since", "url")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    columns = ("environment", "model", "release", "since", "url")
    print_table(
        columns, rows, empty="Nothing is live yet. Release a model: konveyer submit PROJECT"
    )
