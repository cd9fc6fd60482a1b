"""`konveyer serve`: a serving node in the foreground, and one process of it."""

from pathlib import Path

import click

from konveyer.cli.context import Context, pass_context


@click.command()
@click.argument("environment")
@click.option("--host", help="Where to listen (default: the environment's host in konveyer.toml).")
@click.option("--port", type=int, help="0 takes a free port (default: as in konveyer.toml).")
@click.option(
    "--processes",
    type=click.IntRange(1, 512),
    help="How many answer on the port (default: as in konveyer.toml, or as many as cores).",
)
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
    processes: int | None,
    url: str | None,
    parent: int | None,
) -> None:
    """Run a serving node of ENVIRONMENT until it is stopped.

    \b
    Example: konveyer serve prod --port 8081 --processes 2
    """
    from konveyer.node_wiring import serve_node

    serve_node(
        context.settings,
        environment,
        host=host,
        port=port,
        processes=processes,
        url=url,
        parent=parent,
    )


@click.command("node-process", hidden=True)
@click.argument("environment")
@click.option("--number", type=int, required=True)
@click.option("--listener", type=int, required=True)
@click.option("--control", type=int, required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--sockets", type=click.Path(path_type=Path), required=True)
@pass_context
def node_process(
    context: Context,
    environment: str,
    number: int,
    listener: int,
    control: int,
    folder: Path,
    sockets: Path,
) -> None:
    """One process of a node, started by `konveyer serve`."""
    from konveyer.node_wiring import serve_process

    serve_process(
        context.settings,
        environment,
        number=number,
        listener=listener,
        control=control,
        folder=folder,
        sockets=sockets,
    )
