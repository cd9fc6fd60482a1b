"""`konveyer features push`: send the rows of a file to a source."""

from pathlib import Path
from typing import Any

import click

from konveyer.cli.context import Context, pass_context
from konveyer.cli.render import print_json
from konveyer.core.errors import KonveyerError
from konveyer.core.wording import when


class FileUnreadable(KonveyerError):
    """A file that is neither Parquet nor JSON, or is damaged."""

    code = "file_unreadable"


@click.command()
@click.argument("source")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--key", required=True, help="One for each push; the same one to repeat it.")
@click.option("--dry-run", is_flag=True, help="Look at the rows and keep nothing.")
@pass_context
def push(context: Context, source: str, file: Path, key: str, dry_run: bool) -> None:
    """Send the rows of FILE to a pushed SOURCE: kept exactly once, and online at once.

    FILE is Parquet, a JSON list of objects (.json), or an object on each line (.jsonl).

    \b
    Example: konveyer features push clicks clicks.jsonl --key clicks-2026-01-10T12
    """
    workspace = context.workspace
    with workspace.catalog.reading() as session:
        actor = context.actor(session)
    rows = _rows(context.found(file))
    done = workspace.pusher.push(actor, source, rows, key=key, dry_run=dry_run)
    if context.as_json:
        print_json({"push": done, "done": not dry_run})
        return
    views = ", ".join(done.online) or "no view: each takes them up at its refresh"
    if dry_run:
        click.echo(f"{done.rows} row(s) fit {source}. They would be online in {views} (dry run).")
    else:
        click.echo(
            f"Push {done.number}: {done.rows} row(s) in {source} at {when(done.arrived_us)}."
        )
        click.echo(f"Online in {views}.")


def _rows(file: Path) -> Any:
    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        match file.suffix:
            case ".parquet":
                return pq.read_table(file, partitioning=None)
            case ".json":
                return msgspec.json.decode(file.read_bytes(), type=list[Any])
            case ".jsonl":
                return msgspec.json.Decoder().decode_lines(file.read_bytes())
    except (pa.ArrowException, msgspec.MsgspecError, OSError) as error:
        first = str(error).splitlines()[0]
        raise FileUnreadable(f"{file}: {first}", hint="name a file that can be read") from error
    raise FileUnreadable(f"{file} is of no known kind.", hint="name it .parquet, .json or .jsonl")
