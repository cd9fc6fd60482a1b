"""`konveyer training-set`: features as they were, one row for each label."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.progress import bars, told_when_interrupted
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, size, when

if TYPE_CHECKING:
    import pyarrow as pa

    from konveyer.feature_store.datamart.explain import ViewCost
    from konveyer.feature_store.datamart.label_files import LabelFiles

_SPINE_OPTIONS = (
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="Parquet file, or a folder of them, with the join keys, a timestamp and the label.",
    ),
    click.option("--labels-sql", "sql", help="The same as a SELECT over registered sources."),
    click.option("--timestamp", default="label_timestamp", show_default=True),
    click.option(
        "--key",
        "keys",
        multiple=True,
        metavar="KEY=COLUMN",
        help="The column of a join key, where it has another name. May repeat.",
    ),
    click.option("--from", "start", help="Without labels: every known entity at this time ..."),
    click.option("--to", "end", help="... and again until this time (default: only once),"),
    click.option("--every", default="1d", show_default=True, help="this far apart."),
)


def _spine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_SPINE_OPTIONS):
        command = option(command)
    return command


@click.group("training-set")
def training_set() -> None:
    """Build, list and remove point-in-time training sets."""


@training_set.command()
@click.argument("service")
@_spine_options
@click.option("--label", help="Column with what came of it.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write the rows here too, as Parquet."
)
@pass_context
def build(
    context: Context,
    /,
    service: str,
    keys: tuple[str, ...],
    label: str | None,
    output: Path | None,
    **spine: Any,
) -> None:
    """Join the features of SERVICE to labels, exactly one row for each label.

    \b
    Examples: konveyer training-set build coupon_response \\
                --labels data/labels.parquet --label redeemed
              konveyer training-set build coupon_response \\
                --from 2017-06-01 --to 2017-12-01 --every 30d --output monthly.parquet
              konveyer training-set build coupon_response --label redeemed --labels-sql \\
                "SELECT household, campaign, started AS label_timestamp, redeemed FROM offers"
    """
    from konveyer.feature_store.datamart.label_files import LabelFiles
    from konveyer.feature_store.datamart.manifest import check_output
    from konveyer.feature_store.datamart.training_set import build_training_set

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    with (
        told_when_interrupted("Nothing was kept."),
        _labels(context, service, _Spine(**spine)) as (frame, timestamp),
        bars(quiet=context.as_json) as progress,
    ):
        if output is not None:
            check_output(output, in_files=isinstance(frame, LabelFiles))
        built = build_training_set(
            workspace.catalog,
            actor,
            workspace.engine,
            workspace.offline,
            service=service,
            labels=frame,
            timestamp=timestamp,
            label=label,
            folder=workspace.training_sets,
            columns=_mapping(keys),
            progress=progress,
        )
    if output is not None:
        with told_when_interrupted(f"{built.manifest.id} is kept, and not in {output}."):
            built.write_to(output)
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
    click.echo(f"  {output or built.path}")
    click.echo("Next: konveyer train PROJECT")


@training_set.command()
@click.argument("service")
@_spine_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only estimate: no features are read, only the rows to find them for.",
)
@pass_context
def explain(
    context: Context,
    /,
    service: str,
    keys: tuple[str, ...],
    dry_run: bool,
    **spine: Any,
) -> None:
    """Show what building a training set reads of each view: the estimate, and what it was.

    \b
    Example: konveyer training-set explain coupon_response --labels data/labels.parquet
    """
    from konveyer.feature_store.datamart.training_set import explain_training_set

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    with _labels(context, service, _Spine(**spine)) as (frame, timestamp):
        rows = frame.num_rows
        costs = explain_training_set(
            workspace.catalog,
            actor,
            workspace.engine,
            workspace.offline,
            service=service,
            labels=frame,
            timestamp=timestamp,
            folder=workspace.training_sets,
            columns=_mapping(keys),
            run=not dry_run,
        )
    if context.as_json:
        print_json(costs)
        return
    click.echo(f"{rows:,} rows to find features for")
    names = (
        "view",
        "method",
        "columns",
        "buckets",
        "files",
        "rows",
        "read",
        "size",
        "read",
        "took",
    )
    print_table(names, [_cost_row(cost) for cost in costs], empty="The service has no views.")
    for cost in costs:
        buckets = "" if cost.which_buckets is None else f" in buckets {cost.which_buckets}"
        click.echo(f"{cost.view}: {', '.join(cost.columns)}{buckets}")


@training_set.command()
@click.argument("training_set_id", metavar="TRAINING_SET")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="The label frame that it was built from (default: as kept with it).",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the rows here, as Parquet.")
@pass_context
def rebuild(
    context: Context, training_set_id: str, labels: Path | None, output: Path | None
) -> None:
    """Build a training set again from its manifest; an error when it is not the same.

    \b
    Example: konveyer training-set rebuild set-01a20f51a224acb64df5
    """
    from konveyer.feature_store.datamart.kept_rows import kept_labels, kept_manifest
    from konveyer.feature_store.datamart.label_files import LabelFiles, labels_at
    from konveyer.feature_store.datamart.manifest import check_output
    from konveyer.feature_store.datamart.training_set import rebuild_training_set

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
        manifest = kept_manifest(session, training_set_id, "")
    frame = (
        kept_labels(workspace.training_sets, manifest)
        if labels is None
        else labels_at(context.found(labels))
    )
    if output is not None:
        check_output(output, in_files=isinstance(frame, LabelFiles))
    with (
        told_when_interrupted("Nothing was changed."),
        bars(quiet=context.as_json) as progress,
        rebuild_training_set(
            workspace.catalog,
            actor,
            workspace.engine,
            workspace.offline,
            manifest,
            frame,
            folder=workspace.training_sets,
            progress=progress,
        ) as again,
    ):
        if output is not None:
            again.write_to(output)
    rows, digest = manifest.rows, manifest.result_digest
    if context.as_json:
        print_json({"id": manifest.id, "rows": rows, "result_digest": digest})
        return
    click.echo(f"{manifest.id}: {rows:,} rows, the same as when it was built")


@training_set.command("list")
@pass_context
def list_command(context: Context) -> None:
    """The training sets that are kept, newest first, and what each is pinned to.

    \b
    Example: konveyer training-set list
    """
    from konveyer.feature_store.datamart.kept_sets import list_training_sets

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        context.reader(session)
        kept = list_training_sets(session, workspace.release_pins(session))
    if context.as_json:
        print_json(kept)
        return
    rows = [
        (
            one.id,
            one.service,
            f"{one.rows:,}",
            one.person,
            when(one.built_us),
            ", ".join(f"{ref.view} v{ref.table_version}" for ref in one.tables),
            "\n".join(one.used_by),
            "" if one.altered_us is None else f"no: altered {when(one.altered_us)}",
        )
        for one in kept
    ]
    columns = ("training set", "service", "rows", "who", "built", "tables", "used by", "rebuilds")
    print_table(columns, rows, empty="No training sets yet. Build one: konveyer training-set build")


@training_set.command()
@click.argument("training_set_id", metavar="TRAINING_SET")
@pass_context
def remove(context: Context, training_set_id: str) -> None:
    """Remove a training set: its rows, and its hold on the tables that it was built from.

    One that a release which is live or on its way was trained on cannot be removed.

    \b
    Example: konveyer training-set remove set-01a20f51a224acb64df5
    """
    from konveyer.feature_store.datamart.kept_sets import remove_training_set

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    remove_training_set(
        workspace.catalog, actor, workspace.training_sets, training_set_id, workspace.release_pins
    )
    if context.as_json:
        print_json({"removed": training_set_id})
        return
    click.echo(f"{training_set_id} is removed.")
    click.echo("Next: konveyer etl vacuum --dry-run")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spine:
    """What the options say of the rows to find features for."""

    labels: Path | None
    sql: str | None
    timestamp: str
    start: str | None
    end: str | None
    every: str


@contextmanager
def _labels(
    context: Context, service: str, spine: _Spine
) -> "Iterator[tuple[pa.Table | LabelFiles, str]]":
    """The label frame, for the block, and the name of its timestamp."""
    from konveyer.core.clock import parse_instant
    from konveyer.feature_store.datamart.entities import AT, cadence
    from konveyer.feature_store.datamart.label_files import labels_at
    from konveyer.feature_store.datamart.label_query import queried_labels
    from konveyer.feature_store.datamart.training_set import entity_frame
    from konveyer.feature_store.definitions.duration import duration_us, parse_duration

    workspace = context.workspace
    match spine:
        case _Spine(labels=Path() as path, sql=None, start=None):
            yield labels_at(context.found(path)), spine.timestamp
        case _Spine(labels=None, sql=str(sql), start=None):
            with workspace.catalog.reading() as session:
                actor = context.actor(session)
            places = workspace.places
            with queried_labels(workspace.catalog, actor, workspace.engine, places, sql) as frame:
                yield frame, spine.timestamp
        case _Spine(labels=None, sql=None, start=str(start)):
            step_us = duration_us(parse_duration(spine.every, where="--every"))
            end_us = parse_instant(spine.end or start)
            with entity_frame(
                workspace.catalog,
                workspace.engine,
                workspace.offline,
                service=service,
                moments_us=cadence(parse_instant(start), end_us, step_us),
                staging=workspace.places.staging,
            ) as frame:
                yield frame, AT
        case _:
            raise click.UsageError("Give one of --labels, --labels-sql and --from.")


def _mapping(keys: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in keys]
    for key, _, column in pairs:
        if not (key and column):
            raise click.BadParameter(f"'{key}' is not KEY=COLUMN.", param_hint="--key")
    return {key: column for key, _, column in pairs}


def _cost_row(cost: "ViewCost") -> tuple[object, ...]:
    return (
        f"{cost.view} v{cost.table_version}",
        cost.method,
        f"{len(cost.columns)} of {cost.of_columns}",
        f"{cost.buckets} of {cost.of_buckets}",
        cost.files,
        f"{cost.rows:,}",
        "" if cost.read_rows is None else f"{cost.read_rows:,}",
        size(cost.size_bytes),
        "" if cost.read_bytes is None else size(cost.read_bytes),
        seconds(cost.read_s),
    )
