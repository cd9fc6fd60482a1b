"""Training sets too large for one process: labels and rows stay in files from end to end.

Labels are taken in block by block, checked and exact. The engine sorts their keys and moments by
bucket, each bucket meets that of the views, and each block of the result is put together from what
all buckets have for it. The driver learns a few numbers of each block and bucket.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core import digests
from konveyer.core.digests import block_digest, digest_of_blocks
from konveyer.core.files import file_written_whole
from konveyer.core.schema import Column, ColumnType
from konveyer.feature_store.datamart.join import Asked, BucketRead, JoinBucket, Watch
from konveyer.feature_store.datamart.label_files import LabelFiles
from konveyer.feature_store.datamart.labels import (
    Nulls,
    Repeats,
    check_no_clash,
    check_no_nulls,
    check_not_empty,
    key_columns,
    nulls_in,
    repeat,
    repeats_in,
    typed_labels,
)
from konveyer.feature_store.datamart.on_demand import with_service_columns
from konveyer.feature_store.datamart.pinned import PinnedView
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine, SortedRows
from konveyer.feature_store.kernel.history import instants
from konveyer.feature_store.offline.bucket_writer import by_bucket
from konveyer.feature_store.offline.layout import BUCKET, bucket_count, bucket_sql, quoted

# Columns of the files in between; no join key of ours begins so.
_ROW, _AT, _REST = "konveyer_row", "konveyer_at", "konveyer_rest"
_MOMENT = (Column(_AT, ColumnType.INT64),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the columns of a label frame mean, as `check_labels` takes it."""

    service: ResolvedService
    timestamp: str
    label: str | None
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRows:
    """What there is to say of rows that stay in files; the digests are those of whole tables."""

    rows: int
    labels_digest: str
    result_digest: str


def write_large(
    labels: LabelFiles,
    meaning: Meaning,
    views: Sequence[PinnedView],
    *,
    engine: Engine,
    folder: Path,
    accept: Callable[[str], None] | None = None,
    watch: Watch | None = None,
) -> WrittenRows:
    """Join features to `labels`: `folder` gets Parquet files with the rows in order, and no others.

    Every worker of the engine must see the folder and the labels. `accept` is asked about the
    digest of the labels before anything is joined.
    """
    check_not_empty(labels.num_rows)
    check_no_clash(labels.schema.names, meaning.service)
    blocks = _Blocks(rows=labels.num_rows, size=digests.BLOCK_ROWS)
    stages = folder / ".stages"
    stages.mkdir(parents=True)
    taken = list(engine.map(_TakeIn(labels, meaning, blocks, stages), range(blocks.count)))
    check_no_nulls([found for block in taken for found in block.nulls])
    labels_digest = digest_of_blocks([block.labels_digest for block in taken])
    if accept is not None:
        accept(labels_digest)
    joined = []
    for stage in _stages(views, blocks, stages):
        filled = _split(engine, stage)
        if not stage.number:
            _check_no_repeats(
                list(engine.map(_FindRepeats(stage), filled)), meaning, stages, blocks
            )
        for reads in engine.map(_JoinBucketFile(stage), filled):
            if watch is not None:
                for read in reads:
                    watch(read)
        joined.append(tuple(stage.joined(bucket) for bucket in filled))
    assemble = _Assemble(meaning.service, tuple(joined), blocks, stages, folder)
    result = digest_of_blocks(list(engine.map(assemble, range(blocks.count))))
    rmtree(stages)
    return WrittenRows(rows=blocks.rows, labels_digest=labels_digest, result_digest=result)


def write_rows(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole."""
    # Numbers seldom repeat: looking for it takes longer than what it saves.
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with file_written_whole(path) as draft:
        pq.write_table(table, draft, use_dictionary=texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """The rows of the label frame, in blocks of one size."""

    rows: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.rows // self.size)

    def bounds(self, block: int) -> tuple[int, int]:
        return block * self.size, min((block + 1) * self.size, self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    labels_digest: str
    nulls: tuple[Nulls, ...]


@dataclass(frozen=True, slots=True)
class _TakeIn:
    """Checks one block of labels, and keeps it beside its spine: row numbers, moments and keys."""

    labels: LabelFiles
    meaning: Meaning
    blocks: _Blocks
    folder: Path

    def __call__(self, block: int) -> _Taken:
        meaning = self.meaning
        first, end = self.blocks.bounds(block)
        table = typed_labels(
            self.labels.between(first, end),
            meaning.service,
            timestamp=meaning.timestamp,
            label=meaning.label,
            columns=meaning.columns,
        )
        keys = key_columns(meaning.service, meaning.columns)
        told_by = [*keys.values(), meaning.timestamp]
        nulls = nulls_in(table, told_by, first)
        if not nulls:
            rest = [n for n in table.column_names if n not in (*told_by, meaning.label)]
            spine = {
                _ROW: pa.array(np.arange(first, end)),
                _AT: pa.array(instants(table.column(meaning.timestamp))),
                _REST: _as_text(table.select(rest)),
                **{key: table.column(name) for key, name in keys.items()},
            }
            write_rows(table, _block_file(self.folder, block))
            write_rows(pa.table(spine), self.folder / f"spine-{block}.parquet")
        return _Taken(labels_digest=block_digest(table), nulls=nulls)


def _as_text(table: pa.Table) -> pa.Array:
    """One text for each row; different rows have different ones."""
    texts = [pa.array([""] * len(table), pa.string())]
    for column in table.columns:
        plain = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        text = plain.cast(pa.string()).combine_chunks()
        length = pc.binary_length(text).cast(pa.string())
        texts.append(pc.binary_join_element_wise(length, text, ":").fill_null("-"))
    return pc.binary_join_element_wise(*texts, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Views with the same join keys, and the files of each bucket in between."""

    folder: Path
    number: int
    keys: tuple[Column, ...]
    views: tuple[PinnedView, ...]
    buckets: int
    blocks: _Blocks

    def spine(self, bucket: int) -> Path:
        return self.folder / f"spine-{self.number}-{bucket}.arrow"

    def joined(self, bucket: int) -> Path:
        return self.folder / f"joined-{self.number}-{bucket}.arrow"

    @property
    def schema(self) -> pa.Schema:
        """Of the spine; the first stage has all that tells one label from another."""
        rest = [] if self.number else [(_REST, pa.string())]
        keys = {key.name: key.dtype.arrow for key in self.keys if key not in _MOMENT}
        return pa.schema([(_ROW, pa.int64()), (_AT, pa.int64()), *rest, *keys.items()])


def _stages(views: Sequence[PinnedView], blocks: _Blocks, folder: Path) -> list[_Stage]:
    by_keys = groupby(sorted(views, key=lambda view: view.plan.keys), key=lambda view: view.keys)
    # Without views there is still to be seen that no label is there twice.
    groups = [(keys, tuple(group)) for keys, group in by_keys] or [(_MOMENT, ())]
    return [
        _Stage(
            folder=folder,
            number=number,
            keys=keys,
            views=group,
            buckets=max([bucket_count(blocks.rows), *(v.table.ref.buckets for v in group)]),
            blocks=blocks,
        )
        for number, (keys, group) in enumerate(groups)
    ]


def _split(engine: Engine, stage: _Stage) -> list[int]:
    """Write the spine of each bucket, in the order of its rows; the buckets that have any."""
    names = ", ".join(quoted(name) for name in stage.schema.names)
    bucket = bucket_sql(stage.keys, stage.buckets)
    rows = SortedRows(
        sql=f"SELECT {names}, {bucket} AS {BUCKET} FROM spine",  # noqa: S608
        part=BUCKET,
        parts=stage.buckets,
        order=(_ROW,),
    )
    with engine.session() as session:
        files = sorted(str(file) for file in stage.folder.glob("spine-*.parquet"))
        session.attach_parquet("spine", files)
        return sorted(b for part in session.map_rows(rows, _WriteSpines(stage)) for b in part)


@dataclass(frozen=True, slots=True)
class _WriteSpines:
    """Writes rows that come bucket by bucket as a file of each."""

    stage: _Stage

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> tuple[int, ...]:
        runs = (run for batch in batches for run in by_bucket(batch))
        filled = []
        for bucket, of_bucket in groupby(runs, key=lambda run: run[0]):
            path, schema = self.stage.spine(bucket), self.stage.schema
            with file_written_whole(path) as draft, pa.ipc.new_file(draft, schema) as file:
                for _, rows in of_bucket:
                    table = pa.Table.from_batches([rows]).select(schema.names)
                    file.write(table.cast(schema))
            filled.append(bucket)
        return tuple(filled)


@dataclass(frozen=True, slots=True)
class _FindRepeats:
    """Labels of one bucket that are alike: equal rows have equal keys, and meet here."""

    stage: _Stage

    def __call__(self, bucket: int) -> Repeats | None:
        spine = _whole(self.stage.spine(bucket))
        return repeats_in(spine.drop_columns([_ROW]), spine.column(_ROW))


def _check_no_repeats(
    found: Sequence[Repeats | None], meaning: Meaning, stages: Path, blocks: _Blocks
) -> None:
    repeats = [one for one in found if one is not None]
    if repeats:
        block, row = divmod(min(one.first for one in repeats), blocks.size)
        labels = pq.ParquetFile(_block_file(stages, block)).read()
        names = [name for name in labels.column_names if name != meaning.label]
        raise repeat(sum(one.rows for one in repeats), labels.select(names).slice(row, 1))


@dataclass(frozen=True, slots=True)
class _JoinBucketFile:
    """Evaluates the views for the spine of one bucket: a file with a batch for each block."""

    stage: _Stage

    def __call__(self, bucket: int) -> tuple[BucketRead, ...]:
        stage = self.stage
        spine = _whole(stage.spine(bucket))
        asked = Asked(
            bucket=bucket,
            keys=spine.select([key.name for key in stage.keys]),
            at_us=spine.column(_AT).to_numpy(),
        )
        joined = JoinBucket(stage.views)(asked)
        rows = spine.column(_ROW)
        table = joined.in_order.append_column(_ROW, rows) if stage.views else pa.table({_ROW: rows})
        edges = np.arange(stage.blocks.count + 1) * stage.blocks.size
        bounds = np.searchsorted(rows.to_numpy(), edges)
        path = stage.joined(bucket)
        with file_written_whole(path) as draft, pa.ipc.new_file(draft, table.schema) as file:
            for start, end in pairwise(bounds):
                file.write_batch(_one_batch(table.slice(start, end - start)))
        return joined.reads


@dataclass(frozen=True, slots=True)
class _Assemble:
    """Puts the rows of one block together from all buckets; gives their digest."""

    service: ResolvedService
    joined: tuple[tuple[Path, ...], ...]
    blocks: _Blocks
    stages: Path
    folder: Path

    def __call__(self, block: int) -> str:
        labels = pq.ParquetFile(_block_file(self.stages, block)).read()
        joined: dict[str, pa.ChunkedArray] = {}
        for files in self.joined:
            found = pa.Table.from_batches([_batch(file, block) for file in files])
            rows = np.asarray(found.column(_ROW))
            order = np.empty_like(rows)
            order[rows - self.blocks.bounds(block)[0]] = np.arange(len(rows))
            found = found.drop_columns([_ROW]).take(pa.array(order))
            joined |= dict(zip(found.column_names, found.columns, strict=True))
        table = with_service_columns(labels, joined, self.service)
        write_rows(table, self.folder / f"part-{block:06}.parquet")
        return block_digest(table)


def _block_file(folder: Path, block: int) -> Path:
    return folder / f"labels-{block}.parquet"


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _whole(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def _batch(path: Path, block: int) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(block)
