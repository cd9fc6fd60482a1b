"""`konveyer train` and `konveyer lock`: a model in its own environment."""

from pathlib import Path

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json
from konveyer.core.wording import when

PROJECT = click.Path(path_type=Path, file_okay=False)


_MEASURES = (
    ("auc", "AUC"),
    ("auc_label_rate", "  label rate alone"),
    ("auc_without_windows", "  without windows"),
    ("log_loss", "log loss"),
    ("log_loss_label_rate", "  label rate alone"),
    ("log_loss_label_shares", "  label shares alone"),
    ("log_loss_without_windows", "  without windows"),
    ("accuracy", "accuracy"),
    ("accuracy_label_shares", "  most common label"),
    ("rmse", "RMSE"),
    ("rmse_mean", "  mean alone"),
    ("rmse_without_windows", "  without windows"),
    ("mae", "MAE"),
    ("mae_median", "  median alone"),
)


@click.command()
@click.argument("project", type=PROJECT)
@click.option("--training-set", help="Its id (default: the newest of the model's service).")
@pass_context
def train(context: Context, project: Path, training_set: str | None) -> None:
    """Train the model PROJECT in its locked environment and log the run to MLflow.

    It learns from the training set of its service that was built last, unless another one is named:
    'konveyer training-set list' shows them.

    \b
    Example: konveyer train models/coupon_response
    """
    from konveyer.catalog import audit
    from konveyer.development.project import load_project
    from konveyer.development.training import train as run_training
    from konveyer.feature_store.datamart.kept_rows import open_training_set

    workspace = context.workspace
    loaded = load_project(context.found(project))
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
        data = open_training_set(
            session, workspace.training_sets, training_set, loaded.model.service
        )
    if not context.as_json:
        of = data.manifest
        click.echo(
            f"Training {loaded.model.application} on {of.id}: {of.rows:,} rows, built "
            f"{when(of.built_us)} by {of.built_by} ..."
        )
    run = run_training(loaded, data, actor, workspace.workshop)
    with workspace.catalog.transaction() as session:
        audit.record(session, actor.name, "trained", "run", run.run_id, measured=run.summary)
    if context.as_json:
        print_json(run)
        return
    metrics = run.metrics
    click.echo(f"run {run.run_id}")
    positive = f", {metrics['label_rate']:.1%} positive" if "label_rate" in metrics else ""
    click.echo(f"  out of time: {metrics['test_rows']:,.0f} rows{positive}")
    for name, label in _MEASURES:
        if name in metrics:
            click.echo(f"  {label:<22} {metrics[name]:,.4f}")
    click.echo(f"Next: konveyer submit {project}")


@click.command()
@click.argument("project", type=PROJECT)
@pass_context
def lock(context: Context, project: Path) -> None:
    """Resolve the PROJECT's requirements.in into requirements.lock, with hashes.

    \b
    Example: konveyer lock models/coupon_response
    """
    from konveyer.development.environment import lock as write_lock

    path = write_lock(context.found(project))
    if context.as_json:
        print_json({"lock": str(path)})
        return
    click.echo(f"Wrote {path}")
