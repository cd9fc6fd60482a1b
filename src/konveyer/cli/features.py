"""`konveyer features`: find features, see what they mean, push rows; forget whom they describe."""

from textwrap import indent
from typing import TYPE_CHECKING

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.push import push
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when

if TYPE_CHECKING:
    from konveyer.feature_store.datamart.held import Held


@click.group()
def features() -> None:
    """Find features, see everything about one view, push rows, and forget an entity."""


@features.command()
@click.argument("text", default="")
@pass_context
def search(context: Context, text: str) -> None:
    """Features that match every word of TEXT, the best first.

    \b
    Example: konveyer features search "basket 30d"
    """
    from konveyer.feature_store.datamart.search import search_features

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        found = search_features(session, text)
    if context.as_json:
        print_json(found)
        return
    rows = [(f.view, f.feature, f.dtype, f.unit, f.uses, f.description) for f in found]
    empty = f"No feature matches '{text}'." if text else "No features yet. Run: konveyer apply"
    print_table(("view", "feature", "type", "unit", "uses", "meaning"), rows, empty=empty)


@features.command()
@click.argument("view")
@pass_context
def show(context: Context, view: str) -> None:
    """Meaning, SQL or function, sources, freshness, values and users of a feature view.

    \b
    Example: konveyer features show basket_activity
    """
    from konveyer.feature_store.datamart.show import show_view

    with context.workspace.catalog.reading() as session:
        context.reader(session)
        details = show_view(session, view)
    if context.as_json:
        print_json(details)
        return
    click.secho(f"{details.name}  {details.version}", bold=True)
    click.echo(details.description)
    if not details.on_demand:
        click.echo(f"entity    {details.entity} ({', '.join(details.keys)})")
    click.echo(f"owner     {details.owner}    tags {', '.join(details.tags)}")
    run = details.computed
    if details.on_demand:
        click.echo("computed  when a prediction asks for it")
    elif run is None:
        click.echo(f"computed  never; run 'konveyer etl run {view}'")
    else:
        took = seconds(run.duration_s)
        click.echo(f"computed  {when(run.finished_us)} by {run.person} in {took}, {run.rows} rows")
    if not details.on_demand:
        click.echo(f"refresh   {details.refresh}    ttl {details.ttl or 'none'}")
    for source in details.sources:
        place = " ".join(source.reads.split())
        click.echo(f"source    {source.name} ({source.kind}): {place}")
    if details.code is not None:
        click.echo("code")
        click.echo(indent(details.code.rstrip(), "  "))
    rows = [
        (
            f.feature,
            f.dtype,
            f.unit,
            *_range(details.profiles.get(f.feature), f.dtype),
            f.uses,
            f.description,
        )
        for f in details.features
    ]
    columns = ("feature", "type", "unit", "nulls", "min", "mean", "max", "uses", "meaning")
    print_table(columns, rows, empty="")


features.add_command(push)


@features.command("forget")
@click.argument("entity")
@click.argument("key", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option(
    "--everywhere",
    is_flag=True,
    help="Also from older table versions and from training sets, which then cannot be rebuilt.",
)
@click.option("--dry-run", is_flag=True, help="Show where it is held and remove nothing.")
@pass_context
def forget_command(
    context: Context, entity: str, key: tuple[str, ...], everywhere: bool, dry_run: bool
) -> None:
    """Remove one ENTITY from readable tables and online records, and keep later runs from it.

    The catalog keeps a digest of its key, so that ETL leaves it out while the source has it.

    \b
    Examples: konveyer features forget household household_id=1171 --dry-run
              konveyer features forget household household_id=1171 --everywhere
    """
    from konveyer.feature_store.datamart.forget import forget
    from konveyer.feature_store.datamart.held import find_entity

    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    pairs = dict(_pair(text) for text in key)
    services, sets = workspace.etl, workspace.training_sets

    def find() -> "Held":
        return find_entity(services, actor, sets, entity, pairs)

    held = find() if dry_run else forget(services, actor, sets, find, everywhere=everywhere)
    if context.as_json:
        print_json({"held": held, "everywhere": everywhere, "done": not dry_run})
        return
    _show_held(held, everywhere, dry_run)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.BadParameter(f"'{text}' is not KEY=VALUE.", param_hint="KEY=VALUE")
    return name, value


def _show_held(held: "Held", everywhere: bool, dry_run: bool) -> None:
    goes, stays = ("would go", "would stay") if dry_run else ("gone", "stays")
    older = goes if everywhere else f"{stays}; --everywhere removes it"
    rows: list[tuple[object, ...]] = [
        (f"table of {table.ref.view} {table.ref.version}", table.rows, goes)
        for table in held.tables
    ]
    rows += [
        (f"pushed rows of {one.source}: {one.path.name}", one.rows, goes) for one in held.segments
    ]
    rows += [(f"online records {space}", 1, goes) for space in held.spaces]
    rows += [
        (
            f"older file of {file.view}: {file.path.name}",
            "unfinished" if file.rows is None else file.rows,
            older,
        )
        for file in held.old_files
    ]
    for one in held.training_sets:
        if one.rows:
            rows.append((f"training set {one.id}", one.rows, older))
        if one.pinned:
            rows.append((f"tables of training set {one.id}", "", older))
    rows += [
        (f"view {name}", "", "not searched: it has other join keys") for name in held.unsearched
    ]
    print_table(("held in", "rows", ""), rows, empty="Nothing is held of it.")
    if held.tables and not everywhere:
        click.echo("What these tables were before has it until a vacuum, or --everywhere.")
    if held.computing:
        click.echo(f"Being computed now: {', '.join(held.computing)}.")
    click.echo(
        "Nothing was done (dry run)."
        if dry_run
        else "Later ETL runs leave it out. Bundles and prediction logs are not changed."
    )


def _range(profile: dict[str, object] | None, dtype: str) -> tuple[str, str, str, str]:
    if profile is None:
        return "", "", "", ""
    rows, nulls = profile["rows"], profile["nulls"]
    assert isinstance(rows, int) and isinstance(nulls, int)  # noqa: S101, PT018 - as profiled
    share = f"{nulls / rows:.0%}" if rows else ""
    low, mean, high = (profile.get(name) for name in ("minimum", "mean", "maximum"))
    return share, _number(low, dtype), _number(mean, dtype), _number(high, dtype)


def _number(value: object, dtype: str) -> str:
    if not isinstance(value, float):
        return ""
    return when(int(value)) if dtype == "timestamp" else f"{value:.6g}"
