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
from konveyer.execution.batch.columns import ArrowColumns, plain
from konveyer.execution.batch.output import BUNDLE, PERIOD, RELEASE, scores_schema
from konveyer.feature_store.kernel.history import EVENT_TIME
from konveyer.feature_store.offline.delta import PartFile

# An isolated model has its time limit for each call.
BATCH_ROWS, ISOLATED_ROWS = 65_536, 256
Rows = Sequence[Sequence[Any]]
# Outputs of the manifest, in order, for each row of features in the service's order.
Predict = Callable[[Rows], Sequence[tuple[Any, ...]]]
# The outputs of a batch, each an array of a value for each row.
Answer = Callable[[pa.RecordBatch], list[pa.Array]]


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
        model = compiled_model(self.bundle)

        def answer(batch: pa.RecordBatch) -> list[pa.Array]:
            try:
                outputs = model.predict_columns(ArrowColumns(batch, self._names))
            except ModelFailed:
                return self._row_by_row(batch, model.predict)
            return [pa.array(column) for column in outputs.T]

        return self._scored(file, answer, BATCH_ROWS)

    def scored(self, file: Path, predict: Predict) -> PartFile:
        """Scores them with the isolated model that `predict` asks."""
        return self._scored(file, lambda batch: self._row_by_row(batch, predict), ISOLATED_ROWS)

    @property
    def _names(self) -> list[str]:
        return [column.name for column in self.bundle.manifest.service.columns]

    def _scored(self, file: Path, answer: Answer, rows_at_once: int) -> PartFile:
        schema = _without_period(scores_schema(self.bundle.manifest))
        rows = pq.read_metadata(file).num_rows
        path = self.folder / f"{uuid4().hex}.parquet"
        with file_written_whole(path) as draft, pq.ParquetWriter(draft, schema) as writer:
            for batch in pq.ParquetFile(file).iter_batches(rows_at_once):
                writer.write_table(self._scores(batch, answer(batch), schema))
        return PartFile(path=str(path), rows=rows, size_bytes=path.stat().st_size)

    def _scores(
        self, batch: pa.RecordBatch, outputs: list[pa.Array], schema: pa.Schema
    ) -> pa.Table:
        manifest = self.bundle.manifest
        columns: dict[str, Any] = {
            key.name: batch.column(key.name) for key in manifest.service.keys
        }
        columns[EVENT_TIME] = batch.column(self.timestamp)
        columns |= {
            output.name: values
            for output, values in zip(manifest.model.outputs, outputs, strict=True)
        }
        columns[BUNDLE] = pa.repeat(pa.scalar(self.bundle.digest), len(batch))
        columns[RELEASE] = pa.repeat(pa.scalar(self.release), len(batch))
        arrays = [columns[field.name].cast(field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _row_by_row(self, batch: pa.RecordBatch, predict: Predict) -> list[pa.Array]:
        """For a model that must be given rows, or that has no answer for one of them."""
        features = [plain(batch.column(name)).to_pylist() for name in self._names]
        answers = self._answers([*zip(*features, strict=True)], predict) if len(batch) else []
        return [
            pa.array(
                [None if answer is None else answer[place] for answer in answers],
                output.dtype.arrow,
            )
            for place, output in enumerate(self.bundle.manifest.model.outputs)
        ]

    def _answers(self, rows: Rows, predict: Predict) -> Sequence[tuple[Any, ...] | None]:
        """None for a row that the model has no answer for: that must not cost the others theirs."""
        try:
            return predict(rows)
        except ModelFailed:
            if len(rows) == 1:
                return [None]
            half = len(rows) // 2
            return [*self._answers(rows[:half], predict), *self._answers(rows[half:], predict)]


def _without_period(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name != PERIOD])
