"""From rows with features to rows with outputs: a job that any engine runs, file by file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.bundle.compiled import compiled_model
from konveyer.bundle.errors import ModelFailed
from konveyer.bundle.store import Bundle
from konveyer.core.files import file_written_whole
from konveyer.execution.batch.output import BUNDLE, PERIOD, RELEASE, scores_schema
from konveyer.feature_store.kernel.history import EVENT_TIME
from konveyer.feature_store.offline.delta import PartFile

# Rows become Python values on their way to the model: so many at a time. An isolated model has its
# time limit for each call.
BATCH_ROWS, ISOLATED_ROWS = 8_192, 256


Rows = Sequence[Sequence[Any]]


# Outputs of the manifest, in order, for each row of features in the service's order.
Predict = Callable[[Rows], Sequence[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFile:
    """Scores the rows of a Parquet file with the compiled model of a bundle, in any process.

    The file that it writes into `folder`, for a table to take in, appears whole.
    """

    bundle: Bundle
    release: str
    timestamp: str
    folder: Path

    def __call__(self, file: Path) -> PartFile:
        return self.scored(file, compiled_model(self.bundle).predict)

    def scored(self, file: Path, predict: Predict, *, rows_at_once: int | None = None) -> PartFile:
        schema = _without_period(scores_schema(self.bundle.manifest))
        rows = pq.read_metadata(file).num_rows
        path = self.folder / f"{uuid4().hex}.parquet"
        with file_written_whole(path) as draft, pq.ParquetWriter(draft, schema) as writer:
            for batch in pq.ParquetFile(file).iter_batches(rows_at_once or BATCH_ROWS):
                writer.write_table(self._scores(batch, predict, schema))
        return PartFile(path=str(path), rows=rows, size_bytes=path.stat().st_size)

    def _scores(self, batch: pa.RecordBatch, predict: Predict, schema: pa.Schema) -> pa.Table:
        manifest = self.bundle.manifest
        features = [_plain(batch.column(column.name)) for column in manifest.service.columns]
        answers = self._answers([*zip(*features, strict=True)], predict) if len(batch) else []
        columns: dict[str, Any] = {
            key.name: batch.column(key.name) for key in manifest.service.keys
        }
        columns[EVENT_TIME] = batch.column(self.timestamp)
        for place, output in enumerate(manifest.model.outputs):
            columns[output.name] = pa.array(
                [None if answer is None else answer[place] for answer in answers],
                output.dtype.arrow,
            )
        columns[BUNDLE] = pa.repeat(pa.scalar(self.bundle.digest), len(batch))
        columns[RELEASE] = pa.repeat(pa.scalar(self.release), len(batch))
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _answers(self, rows: Rows, predict: Predict) -> Sequence[tuple[Any, ...] | None]:
        """None for a row that the model has no answer for: that must not cost the others theirs."""
        try:
            return predict(rows)
        except ModelFailed:
            if len(rows) == 1:
                return [None]
            half = len(rows) // 2
            return [*self._answers(rows[:half], predict), *self._answers(rows[half:], predict)]


def _plain(column: pa.Array) -> list[Any]:
    """Values as a prediction has them: instants are microseconds."""
    plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    values: list[Any] = plain.to_pylist()
    return values


def _without_period(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name != PERIOD])
