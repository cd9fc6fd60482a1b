"""`konveyer nodes`: which nodes are up, on any machine, and what each serves or refuses."""

import click
import msgspec

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when


@click.command()
@click.argument("environment", required=False)
@pass_context
def nodes(context: Context, environment: str | None) -> None:
    """The nodes of ENVIRONMENT (default: of all) that say that they are up.

    \b
    Example: konveyer nodes prod
    """
    from konveyer.execution.serving.presence import nodes_of

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        context.reader(session)
    if environment is not None:
        context.settings.environment(environment)
    names = [environment] if environment is not None else context.settings.environments
    found = [node for name in names for node in nodes_of(workspace.storage, name)]
    if context.as_json:
        print_json([msgspec.to_builtins(node) for node in found])
        return
    rows = [
        (
            node.environment,
            node.url,
            f"{node.host} {node.pid}",
            when(node.started_us),
            f"{seconds(node.silent_s)} ago",
            "\n".join(f"{s.application}/v{s.api_version} {s.side}" for s in node.report.serving),
            "\n".join(f"{r.application}/v{r.api_version}: {r.reason}" for r in node.report.refused),
        )
        for node in found
    ]
    columns = ("environment", "url", "host, process", "since", "heard", "serves", "refuses")
    print_table(columns, rows, empty="No node is up. Start one: konveyer serve ENVIRONMENT")
