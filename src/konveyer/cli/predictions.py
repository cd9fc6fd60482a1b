"""`konveyer predictions`: what was answered, from which features."""

import click

from konveyer.cli.context import LIMIT, Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import when


@click.command()
@click.argument("environment")
@click.option(
    "--request", "request_id", default="", help="Only this request, or its first letters."
)
@click.option("--limit", type=LIMIT, default=20, show_default=True)
@pass_context
def predictions(context: Context, environment: str, request_id: str, limit: int) -> None:
    """The prediction log of ENVIRONMENT: each answer with the features it was made from.

    Newest first, also of requests that failed. A request is here within a second.

    \b
    Example: konveyer predictions prod --request req-01a20f41f253df4802d1
    """
    from konveyer.execution.serving.prediction_reader import newest_predictions

    context.settings.listen(environment)
    workspace = context.workspace
    with workspace.catalog.reading() as session:
        context.reader(session)
    found = newest_predictions(
        workspace.storage,
        environment,
        workspace.bundles,
        request_prefix=request_id,
        limit=limit,
    )
    if context.as_json:
        print_json(found)
        return
    rows = [
        (
            when(p.at_us),
            p.application,
            _listed(p.keys),
            p.error or _shown(p.prediction, p.outputs),
            p.latency_us,
            p.request_id,
        )
        for p in found
    ]
    columns = ("when", "application", "keys", "prediction", "took µs", "request")
    print_table(columns, rows, empty=f"Nothing was predicted in '{environment}' yet.")
    if len(found) == 1:
        print_table(("feature", "value"), found[0].features.items(), empty="")


def _shown(prediction: float | None, outputs: list[object] | None) -> str:
    return str(outputs) if prediction is None else f"{prediction:.4f}"


def _listed(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
