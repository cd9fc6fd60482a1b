"""`konveyer up`: what a person needs, kept running until Ctrl-C; and its two own processes."""

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json


@click.command()
@click.option("--mlflow", is_flag=True, help="Start MLflow's own UI too.")
@click.option("--free-ports", is_flag=True, help="Take free ports instead of the configured ones.")
@pass_context
def up(context: Context, mlflow: bool, free_ports: bool) -> None:
    """Start the portal and API, a node for each environment, and the pipeline worker.

    Prints the addresses once everything answers, and stops all of it on Ctrl-C. While it runs,
    other commands hand their work to its pipeline worker. Logs are in state/logs.

    \b
    Example: konveyer up --mlflow
    """
    from konveyer.cli.supervisor import children_of, supervise

    def announce(addresses: dict[str, str]) -> None:
        if context.as_json:
            print_json(addresses)
            return
        width = max(map(len, addresses))
        for name, address in addresses.items():
            click.echo(f"{name:<{width}}  {address}")
        click.echo("Stop with Ctrl-C.")

    context.workspace.refuse_if_held()
    children = children_of(context.settings, free_ports=free_ports, with_mlflow=mlflow)
    supervise(children, announce=announce)


@click.command()
@pass_context
def worker(context: Context) -> None:
    """Run the pipeline worker until it is stopped; unfinished runs are resumed first.

    \b
    Example: konveyer worker
    """
    from konveyer.wiring import run_worker

    run_worker(context.workspace)


@click.command()
@click.option("--host", help="Where to listen (default: as in konveyer.toml).")
@click.option("--port", type=int, help="0 takes a free port (default: as in konveyer.toml).")
@click.option(
    "--leave-runs",
    is_flag=True,
    help="Leave runs to a worker, and refuse them while there is none.",
)
@pass_context
def portal(context: Context, host: str | None, port: int | None, leave_runs: bool) -> None:
    """Serve the portal and the REST API until stopped.

    \b
    Example: konveyer portal --port 9000
    """
    from konveyer.cli.web import serve_web

    listen = context.settings.portal
    workspace = context.workspace
    workspace.leaves_runs = leave_runs
    serve_web(workspace, host or listen.host, listen.port if port is None else port)
