"""`konveyer features`: find features and see what they mean."""

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json, print_table
from konveyer.core.wording import seconds, when


@click.group()
def features() -> None:
    """Find features, and see everything about one view."""


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
        context.actor(session)
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
    """Meaning, SQL, sources, freshness, values and users of a feature view.

    \b
    Example: konveyer features show basket_activity
    """
    from konveyer.feature_store.datamart.show import show_view

    with context.workspace.catalog.reading() as session:
        context.actor(session)
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
