"""The spine of a large training set, bucket by bucket, and the features of each, all in files.

The spine of a bucket has row numbers, moments and join keys. Its features stand in the order of the
row numbers, in one Arrow batch for each block of the label frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from konveyer.core.files import file_written_whole
from konveyer.core.schema import ColumnType, ScalarColumn
from konveyer.feature_store.datamart import pieces
from konveyer.feature_store.datamart.join import Asked, BucketRead, JoinBucket
from konveyer.feature_store.datamart.labels import Repeats, repeats_in
from konveyer.feature_store.datamart.pieces import Piece, is_heavy, pieces_of, sorted_spine
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.engines.base import Engine, SortedRows
from konveyer.feature_store.kernel.codes import Ints
from konveyer.feature_store.offline.bucket_writer import by_bucket
from konveyer.feature_store.offline.layout import BUCKET, bucket_count, bucket_sql, quoted

# Columns of the files in between; no join key of ours begins so.
ROW, AT, REST = "konveyer_row", "konveyer_at", "konveyer_rest"
MOMENT = (ScalarColumn(AT, ColumnType.INT64),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The rows of the label frame, in blocks of one size."""

    rows: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.rows // self.size)

    def bounds(self, block: int) -> tuple[int, int]:
        return block * self.size, min((block + 1) * self.size, self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Views with the same join keys, and the files in between with the spine of each bucket.

    `other_keys` are those that only other stages have.
    """

    folder: Path
    number: int
    keys: tuple[ScalarColumn, ...]
    other_keys: tuple[ScalarColumn, ...]
    views: tuple[PinnedView, ...]
    buckets: int
    blocks: Blocks
    most_rows: int

    def spine(self, bucket: int) -> Path:
        return self.folder / f"spine-{self.number}-{bucket}.arrow"

    def moments(self, bucket: int) -> tuple[pa.Table, Ints, pa.ChunkedArray]:
        """The join keys, the moments and the row numbers of one bucket, in the order of these."""
        spine = _whole(self.spine(bucket))
        keys = spine.select([key.name for key in self.keys])
        return keys, spine.column(AT).to_numpy(), spine.column(ROW)

    @property
    def schema(self) -> pa.Schema:
        """Of the spine; the first stage has all that tells one label from another."""
        rest = [] if self.number else [(REST, pa.string())]
        told_by = self.keys if self.number else (*self.keys, *self.other_keys)
        keys = {key.name: key.dtype.arrow for key in told_by if key not in MOMENT}
        return pa.schema([(ROW, pa.int64()), (AT, pa.int64()), *rest, *keys.items()])


def stages_of(views: Sequence[PinnedView], blocks: Blocks, folder: Path) -> list[Stage]:
    by_keys = groupby(sorted(views, key=lambda view: view.plan.keys), key=lambda view: view.keys)
    # Without views there is still to be seen that no label is there twice.
    groups = [(keys, tuple(group)) for keys, group in by_keys] or [(MOMENT, ())]
    every_key = dict.fromkeys(key for keys, _ in groups for key in keys)
    return [
        Stage(
            folder=folder,
            number=number,
            keys=keys,
            other_keys=tuple(key for key in every_key if key not in keys),
            views=group,
            buckets=max([bucket_count(blocks.rows), *(v.table.ref.buckets for v in group)]),
            blocks=blocks,
            most_rows=pieces.MOST_ROWS,
        )
        for number, (keys, group) in enumerate(groups)
    ]


def split(engine: Engine, stage: Stage) -> dict[int, int]:
    """Write the spine of each bucket, in the order of its rows; how many each has that has any."""
    names = ", ".join(quoted(name) for name in stage.schema.names)
    bucket = bucket_sql(stage.keys, stage.buckets)
    rows = SortedRows(
        sql=f"SELECT {names}, {bucket} AS {BUCKET} FROM spine",  # noqa: S608
        part=BUCKET,
        parts=stage.buckets,
        order=(ROW,),
    )
    with engine.session() as session:
        files = sorted(str(file) for file in stage.folder.glob("spine-*.parquet"))
        session.attach_parquet("spine", files)
        written = session.map_rows(rows, _WriteSpines(stage))
    return dict(sorted(pair for part in written for pair in part))


@dataclass(frozen=True, slots=True)
class _WriteSpines:
    """Writes rows that come bucket by bucket as a file of each."""

    stage: Stage

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> tuple[tuple[int, int], ...]:
        runs = (run for batch in batches for run in by_bucket(batch))
        filled = []
        for bucket, of_bucket in groupby(runs, key=lambda run: run[0]):
            path, schema, count = self.stage.spine(bucket), self.stage.schema, 0
            with file_written_whole(path) as draft, pa.ipc.new_file(draft, schema) as file:
                for _, rows in of_bucket:
                    table = pa.Table.from_batches([rows]).select(schema.names)
                    file.write(table.cast(schema))
                    count += len(rows)
            filled.append((bucket, count))
        return tuple(filled)


@dataclass(frozen=True, slots=True)
class FindRepeats:
    """Labels of one bucket that are alike: equal rows have equal keys, and meet here."""

    stage: Stage

    def __call__(self, bucket: int) -> Repeats | None:
        spine = _whole(self.stage.spine(bucket))
        return repeats_in(spine.drop_columns([ROW]), spine.column(ROW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The spine of a bucket, or the piece of that number."""

    bucket: int
    number: int
    piece: Piece | None


@dataclass(frozen=True, slots=True)
class Reading:
    """Views of a stage that are read together, and the files with their features."""

    stage: Stage
    views: tuple[PinnedView, ...]
    number: int

    def joined(self, part: Part) -> Path:
        return self.stage.folder / f"joined-{self.number}-{part.bucket}-{part.number}.arrow"


def parts_of(engine: Engine, reading: Reading, filled: Mapping[int, int]) -> list[Part]:
    most_rows = reading.stage.most_rows
    heavy = [
        bucket
        for bucket, labels in filled.items()
        if reading.views and is_heavy(reading.views[0], bucket, labels, most_rows)
    ]
    cut = dict(zip(heavy, engine.map(_CutBucket(reading), heavy), strict=True))
    return [
        Part(bucket=bucket, number=number, piece=piece)
        for bucket in filled
        for number, piece in enumerate(cut.get(bucket, [None]))
    ]


@dataclass(frozen=True, slots=True)
class _CutBucket:
    """The pieces of a heavy bucket, of one view."""

    reading: Reading

    def __call__(self, bucket: int) -> list[Piece | None]:
        keys, at_us, _ = self.reading.stage.moments(bucket)
        spine, _ = sorted_spine(keys, at_us)
        return [*pieces_of(self.reading.views[0], bucket, spine, self.reading.stage.most_rows)]


@dataclass(frozen=True, slots=True)
class JoinPart:
    """Evaluates the views for some of the spine: a file with a batch for each block."""

    reading: Reading

    def __call__(self, part: Part) -> tuple[BucketRead, ...]:
        stage, piece = self.reading.stage, part.piece
        keys, at_us, rows = stage.moments(part.bucket)
        if piece is not None:
            # In the order of the row numbers again, as the blocks are.
            mine = np.sort(sorted_spine(keys, at_us)[1][piece.start : piece.end])
            keys, at_us, rows = keys.take(pa.array(mine)), at_us[mine], rows.take(pa.array(mine))
        asked = Asked(
            bucket=part.bucket,
            keys=keys,
            at_us=at_us,
            groups=None if piece is None else piece.groups,
        )
        joined = JoinBucket(self.reading.views)(asked)
        has_views = bool(self.reading.views)
        table = joined.in_order.append_column(ROW, rows) if has_views else pa.table({ROW: rows})
        edges = np.arange(stage.blocks.count + 1) * stage.blocks.size
        bounds = np.searchsorted(rows.to_numpy(), edges)
        path = self.reading.joined(part)
        with file_written_whole(path) as draft, pa.ipc.new_file(draft, table.schema) as file:
            for start, end in pairwise(bounds):
                file.write_batch(_one_batch(table.slice(start, end - start)))
        return joined.reads


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _whole(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def batch_of(path: Path, block: int) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(block)
