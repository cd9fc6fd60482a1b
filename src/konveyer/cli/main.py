"""The `konveyer` command: one tree, `--json` for scripts, errors with a code and the next step."""

import os
import sys
from pathlib import Path

import click

from konveyer import __version__
from konveyer.cli import (
    apply,
    batch,
    demo,
    etl,
    features,
    init,
    keys,
    models,
    nodes,
    people,
    predictions,
    releases,
    serve,
    train,
    training_set,
    up,
)
from konveyer.cli.context import Context
from konveyer.cli.render import print_error
from konveyer.core.errors import KonveyerError

EPILOG = """\b
Examples:
  konveyer init shop --example coupon-response   make a workspace with real data
  konveyer apply --dry-run                       what would change in the registry
  konveyer etl run                               compute, check and publish features
  konveyer submit models/coupon_response         send a trained model to production
  konveyer up                                    start what a person needs
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="konveyer")
@click.option(
    "-w",
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="KONVEYER_WORKSPACE",
    default=Path(),
    help="Folder with konveyer.toml, or one below it (default: the current folder).",
)
@click.option(
    "--profile",
    envvar="KONVEYER_PROFILE",
    help="Whose saved token to act with (default: the administrator made by 'init'). "
    "KONVEYER_TOKEN overrides it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value for scripts.")
@click.pass_context
def cli(context: click.Context, workspace: Path, profile: str | None, as_json: bool) -> None:
    """Konveyer: from raw events to a prediction served in production."""
    context.obj = Context(start=workspace, profile=profile, as_json=as_json)


for command in (
    init.init,
    apply.apply,
    etl.etl,
    features.features,
    training_set.training_set,
    train.train,
    releases.submit,
    releases.release,
    models.models,
    nodes.nodes,
    predictions.predictions,
    batch.batch,
    people.people,
    keys.key,
    serve.serve,
    serve.node_process,
    up.up,
    up.worker,
    up.portal,
    train.lock,
    demo.demo,
):
    cli.add_command(command)


def main() -> None:
    """Run the command; exit 0 when it did what was asked, 1 on an error, 2 on wrong usage."""
    arguments = sys.argv[1:]
    # MLflow tells its makers how it is used, also in the processes that we start.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        sys.exit(cli.main(arguments, standalone_mode=False))
    except KonveyerError as error:
        print_error(error, as_json="--json" in arguments)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if os.environ.get("KONVEYER_TRACEBACK"):
            raise
        from konveyer.catalog.outages import explained

        print_error(explained(error), as_json="--json" in arguments)
        sys.exit(1)
