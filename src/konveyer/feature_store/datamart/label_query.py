"""Label frames that are asked for in SQL, over the same sources as features."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.access.actor import Actor
from konveyer.access.roles import Permission
from konveyer.catalog.session import Catalog
from konveyer.core.errors import did_you_mean
from konveyer.core.files import file_written_whole
from konveyer.feature_store.datamart.label_files import LabelFiles, labels_at
from konveyer.feature_store.datamart.labels import LabelsEmpty
from konveyer.feature_store.datamart.manifest import written_below
from konveyer.feature_store.definitions.definition import Kind
from konveyer.feature_store.definitions.source import Source
from konveyer.feature_store.engines.base import Engine, QueryFailed, SortedRows
from konveyer.feature_store.registry.errors import SqlInvalid
from konveyer.feature_store.registry.lookup import active_state
from konveyer.feature_store.registry.sql import nestable, tables_read
from konveyer.feature_store.registry.state import RegistryState
from konveyer.feature_store.sources.attach import attach
from konveyer.feature_store.sources.files import unchanged
from konveyer.feature_store.sources.kind import Places
from konveyer.feature_store.sources.staging import staging_folder

# No column of a label frame begins so.
_PART = "konveyer_part"
_WHERE = "the labels"


@contextmanager
def queried_labels(
    catalog: Catalog, actor: Actor, engine: Engine, places: Places, sql: str
) -> Iterator[pa.Table | LabelFiles]:
    """The rows of one SELECT over registered sources, for the block.

    They are sorted by all of their columns, so that the same data gives the same frame. The engine
    writes them to a file; they come into memory only when they are few.
    """
    actor.require(Permission.BUILD_TRAINING_SETS)
    with catalog.reading() as session:
        sources = _sources_read(active_state(session), sql)
    with ExitStack() as stack:
        with written_below(places.staging, "The label frame"):
            folder = stack.enter_context(staging_folder(places.staging))
        file = folder / "labels.parquet"
        with unchanged(sources, places), engine.session() as tables:
            for source in sources:
                attach(source, tables, places, staging=folder)
            _write(tables, nestable(sql), file)
        yield labels_at(file)


def _sources_read(state: RegistryState, sql: str) -> list[Source]:
    """Each after those that it reads itself."""
    found: dict[str, Source] = {}
    for name in tables_read(sql, where=_WHERE):
        if (Kind.SOURCE, name) not in state.definitions:
            known = state.names(Kind.SOURCE)
            raise SqlInvalid(
                f"The SQL of {_WHERE} reads '{name}', which is no registered source.",
                hint=did_you_mean(name, known, otherwise=f"there are {', '.join(known)}"),
            )
        for source in [*state.sources_of((Kind.SOURCE, name)), state.source(name)]:
            found[source.name] = source
    return list(found.values())


def _write(tables: Engine, sql: str, file: Path) -> None:
    try:
        schema = tables.describe(sql)
        rows = SortedRows(
            sql=f"SELECT *, 0 AS {_PART} FROM ({sql}) AS labels",  # noqa: S608 - one SELECT
            part=_PART,
            parts=1,
            order=tuple(schema.names),
        )
        written = sum(tables.map_rows(rows, _WriteFile(file)))
    except QueryFailed as error:
        raise SqlInvalid(f"The SQL of {_WHERE}: {error.message}", hint=error.hint) from error
    if not written:
        raise LabelsEmpty(
            f"The SQL of {_WHERE} gives no rows.", hint="see what its sources hold, and its WHERE"
        )


@dataclass(frozen=True, slots=True)
class _WriteFile:
    """Writes rows as they come; how many they were."""

    file: Path

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> int:
        with written_below(self.file.parent, "The label frame"):
            return self._write(batches)

    def _write(self, batches: Iterator[pa.RecordBatch]) -> int:
        first = next(batches, None)
        if first is None:
            return 0
        rows, schema = 0, first.schema.remove(first.schema.get_field_index(_PART))
        with file_written_whole(self.file) as draft, pq.ParquetWriter(draft, schema) as writer:
            for batch in chain([first], batches):
                writer.write_batch(batch.select(schema.names))
                rows += len(batch)
        return rows
