"""Making sources readable by name in an engine session."""

from pathlib import Path
from typing import assert_never

from konveyer.core.schema import arrow_schema
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.engines.base import Engine, SourceUnreadable
from konveyer.feature_store.offline.delta import open_delta
from konveyer.feature_store.offline.table_version import OfflineTableUnreadable
from konveyer.feature_store.sources.csv_files import check_csv, read_csv
from konveyer.feature_store.sources.databases import database_rows, database_schema
from konveyer.feature_store.sources.files import check_parquet, files_of, partitioned_below
from konveyer.feature_store.sources.kind import Places, SourceKind, kind_of
from konveyer.feature_store.sources.segments import check_segments, readable_files
from konveyer.feature_store.sources.staging import staged


def attach(source: Source, session: Engine, places: Places, *, staging: Path | None) -> SourceKind:
    """Make `source` a table of its name, after those that it reads; gives its kind.

    Parquet, Delta and pushed rows are read where they stand, as they are now: what a writer adds
    later is not seen. CSV and databases are read once, into `staging`; without it their table, and
    that of Delta and of pushed rows, has the columns and no rows.
    """
    kind = kind_of(source, places)
    match kind:
        case SourceKind.SQL:
            session.attach_query(source.name, source.sql or "")
        case SourceKind.PARQUET:
            files = files_of(source, places.root)
            check_parquet(source, files)
            below = partitioned_below(source, places.root, files)
            session.attach_parquet(
                source.name,
                [str(file) for file in files],
                below=None if below is None else str(below),
            )
        case SourceKind.DELTA:
            _attach_delta(source, session, places, staging)
        case SourceKind.CSV:
            _attach_csv(source, session, places, staging)
        case SourceKind.DATABASE:
            _attach_database(source, session, places, staging)
        case SourceKind.PUSHED:
            _attach_pushed(source, session, places, staging)
        case _:
            assert_never(kind)
    return kind


def _attach_delta(source: Source, session: Engine, places: Places, staging: Path | None) -> None:
    try:
        dataset = open_delta(places.root / (source.path or ""))
    except OfflineTableUnreadable as error:
        raise SourceUnreadable(
            f"Source '{source.name}': {error.message}", hint=error.hint
        ) from error
    if staging is None:
        session.attach_table(source.name, dataset.schema.empty_table())
    else:
        session.attach_dataset(source.name, dataset, staging)


def _attach_csv(source: Source, session: Engine, places: Places, staging: Path | None) -> None:
    files = files_of(source, places.root)
    check_csv(source, files)
    rows = read_csv(source, files)
    if staging is None:
        session.attach_table(source.name, rows.schema.empty_table())
    else:
        session.attach_parquet(source.name, [str(staged(source.name, rows, staging))])


def _attach_database(source: Source, session: Engine, places: Places, staging: Path | None) -> None:
    if staging is None:
        session.attach_table(source.name, database_schema(source, places).empty_table())
        return
    with database_rows(source, places) as rows:
        session.attach_parquet(source.name, [str(staged(source.name, rows, staging))])


def _attach_pushed(source: Source, session: Engine, places: Places, staging: Path | None) -> None:
    listed = places.segments.get(source.name, ())
    check_segments(source, listed, places.pushed / source.name)
    if staging is None or not listed:
        session.attach_table(source.name, arrow_schema(source.declared).empty_table())
        return
    files = readable_files(source, listed, places.pushed / source.name, staging)
    session.attach_parquet(source.name, [str(file) for file in files])
