"""`konveyer training-set`: features as they were, one row for each label."""

from pathlib import Path

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json


@click.group("training-set")
def training_set() -> None:
    """Build point-in-time training sets."""


@training_set.command()
@click.argument("service")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    required=True,
    help="Parquet file with the join keys, a timestamp and the label.",
)
@click.option("--timestamp", default="label_timestamp", show_default=True)
@click.option("--label", help="Column with what came of it.")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY=COLUMN",
    help="The column of a join key, where it has another name. May repeat.",
)
@pass_context
def build(
    context: Context,
    service: str,
    labels: Path,
    timestamp: str,
    label: str | None,
    keys: tuple[str, ...],
) -> None:
    """Join the features of SERVICE to labels, exactly one row for each label.

    \b
    Example: konveyer training-set build coupon_response \\
               --labels data/labels.parquet --label redeemed
    """
    from konveyer.feature_store.datamart.labels import read_labels
    from konveyer.feature_store.datamart.training_set import build_training_set

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    path = labels if labels.exists() else context.settings.root / labels
    built = build_training_set(
        workspace.catalog,
        actor,
        workspace.engine,
        workspace.offline,
        service=service,
        labels=read_labels(path),
        timestamp=timestamp,
        label=label,
        folder=workspace.training_sets,
        columns=dict(_mapping(key) for key in keys),
    )
    manifest = built.manifest
    if context.as_json:
        print_json(
            {
                "id": manifest.id,
                "rows": manifest.rows,
                "features": len(manifest.service.features),
                "path": str(built.path),
                "result_digest": manifest.result_digest,
            }
        )
        return
    click.echo(f"{manifest.id}: {manifest.rows:,} rows, {len(manifest.service.features)} features")
    click.echo(f"  {built.path}")
    click.echo("Next: konveyer train PROJECT")


def _mapping(text: str) -> tuple[str, str]:
    key, equals, column = text.partition("=")
    if not (key and equals and column):
        raise click.BadParameter(f"'{text}' is not KEY=COLUMN.", param_hint="--key")
    return key, column
