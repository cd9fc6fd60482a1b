"""`konveyer serve`: one serving node in the foreground."""

import click

from konveyer.cli.context import Context, pass_context


@click.command()
@click.argument("environment")
@click.option("--host", help="Where to listen (default: the environment's host in konveyer.toml).")
@click.option("--port", type=int, help="0 takes a free port (default: as in konveyer.toml).")
@click.option(
    "--url",
    envvar="KONVEYER_NODE_URL",
    help="Where other machines reach this node (default: where it listens).",
)
@click.option("--parent", type=int, help="Stop when the process with this id, the parent, ends.")
@pass_context
def serve(
    context: Context,
    environment: str,
    host: str | None,
    port: int | None,
    url: str | None,
    parent: int | None,
) -> None:
    """Run a serving node of ENVIRONMENT until it is stopped.

    \b
    Example: konveyer serve prod --port 8081
    """
    from konveyer.wiring import serve_node

    serve_node(context.settings, environment, host=host, port=port, url=url, parent=parent)
