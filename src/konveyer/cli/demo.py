"""`konveyer demo`: the whole conveyor on real data, through the commands that everybody uses."""

from pathlib import Path

import click

from konveyer.cli.context import Context, pass_context


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("konveyer-demo"),
    show_default=True,
    help="Where the demo's workspace is made; an earlier demo there is replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@pass_context
def demo(context: Context, folder: Path, as_json: bool) -> None:
    """Run the conveyor on real data, from raw events to a prediction served in production.

    Every step is a public command, run as its own process.

    \b
    Example: konveyer demo --folder shop
    """
    from konveyer.cli.conveyor import run_conveyor

    run_conveyor(folder, as_json=as_json or context.as_json)
