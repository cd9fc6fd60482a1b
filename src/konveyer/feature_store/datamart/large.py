"""Training sets too large for one process: labels and rows stay in files from end to end.

Labels are taken in block by block, checked and exact. The engine sorts their keys and moments by
bucket, each bucket meets that of the views, and each block of the result is put together from what
all buckets have for it. The driver learns a few numbers of each block and bucket.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from konveyer.core import digests
from konveyer.core.digests import block_digest, digest_of_blocks
from konveyer.core.files import file_written_whole
from konveyer.core.progress import Progress, counted, unseen
from konveyer.feature_store.datamart.join import Watch, read_together
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
    typed_labels,
)
from konveyer.feature_store.datamart.on_demand import with_service_columns
from konveyer.feature_store.datamart.pinned_view import PinnedView
from konveyer.feature_store.datamart.spines import (
    AT,
    REST,
    ROW,
    Blocks,
    FindRepeats,
    JoinPart,
    Reading,
    batch_of,
    parts_of,
    split,
    stages_of,
)
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.engines.base import Engine
from konveyer.feature_store.kernel.errors import naming_views
from konveyer.feature_store.kernel.history import instants


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
    progress: Progress = unseen,
) -> WrittenRows:
    """Join features to `labels`: `folder` gets Parquet files with the rows in order, and no others.

    Every worker of the engine must see the folder and the labels. `accept` is asked about the
    digest of the labels before anything is joined.
    """
    check_not_empty(labels.num_rows)
    check_no_clash(labels.schema.names, meaning.service)
    blocks = Blocks(rows=labels.num_rows, size=digests.BLOCK_ROWS)
    stages = folder / ".stages"
    stages.mkdir(parents=True)
    each = range(blocks.count)
    # Nobody may write to the folder any more when an error, or Ctrl-C, leaves this function.
    with closing(engine.map(_TakeIn(labels, meaning, blocks, stages), each)) as taking:
        taken = list(counted(taking, progress, "labels", blocks.count))
    check_no_nulls([found for block in taken for found in block.nulls])
    labels_digest = digest_of_blocks([block.labels_digest for block in taken])
    if accept is not None:
        accept(labels_digest)
    joined: list[tuple[Path, ...]] = []
    for stage in stages_of(views, blocks, stages):
        filled = split(engine, stage)
        if not stage.number:
            _check_no_repeats(list(engine.map(FindRepeats(stage), filled)), meaning, stages, blocks)
        sizes = [filled.get(bucket, 0) for bucket in range(stage.buckets)]
        for views_of_stage in read_together(stage.views, sizes, stage.most_rows) or [()]:
            reading = Reading(stage, views_of_stage, len(joined))
            parts = parts_of(engine, reading, filled)
            names = [view.table.ref.view for view in views_of_stage]
            with naming_views(names), closing(engine.map(JoinPart(reading), parts)) as done:
                for reads in counted(done, progress, ", ".join(names), len(parts)):
                    if watch is not None:
                        for read in reads:
                            watch(read)
            joined.append(tuple(reading.joined(part) for part in parts))
    assemble = _Assemble(meaning.service, tuple(joined), blocks, stages, folder)
    with closing(engine.map(assemble, each)) as assembled:
        result = digest_of_blocks(list(counted(assembled, progress, "rows", blocks.count)))
    rmtree(stages)
    return WrittenRows(rows=blocks.rows, labels_digest=labels_digest, result_digest=result)


def write_rows(table: pa.Table, path: Path) -> None:
    """Write a Parquet file that appears whole."""
    # Numbers seldom repeat, and rows in the order of labels have no ranges worth knowing: to look
    # for either takes longer than it saves.
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    with file_written_whole(path) as draft:
        pq.write_table(table, draft, use_dictionary=texts, write_statistics=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    labels_digest: str
    nulls: tuple[Nulls, ...]


@dataclass(frozen=True, slots=True)
class _TakeIn:
    """Checks one block of labels, and keeps it beside its spine: row numbers, moments and keys."""

    labels: LabelFiles
    meaning: Meaning
    blocks: Blocks
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
                ROW: pa.array(np.arange(first, end)),
                AT: pa.array(instants(table.column(meaning.timestamp))),
                REST: _as_text(table.select(rest)),
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


def _check_no_repeats(
    found: Sequence[Repeats | None], meaning: Meaning, stages: Path, blocks: Blocks
) -> None:
    repeats = [one for one in found if one is not None]
    if repeats:
        block, row = divmod(min(one.first for one in repeats), blocks.size)
        labels = pq.ParquetFile(_block_file(stages, block)).read()
        names = [name for name in labels.column_names if name != meaning.label]
        raise repeat(sum(one.rows for one in repeats), labels.select(names).slice(row, 1))


@dataclass(frozen=True, slots=True)
class _Assemble:
    """Puts the rows of one block together from all buckets; gives their digest."""

    service: ResolvedService
    joined: tuple[tuple[Path, ...], ...]
    blocks: Blocks
    stages: Path
    folder: Path

    def __call__(self, block: int) -> str:
        labels = pq.ParquetFile(_block_file(self.stages, block)).read()
        joined: dict[str, pa.ChunkedArray] = {}
        for files in self.joined:
            found = pa.Table.from_batches([batch_of(file, block) for file in files])
            rows = np.asarray(found.column(ROW))
            order = np.empty_like(rows)
            order[rows - self.blocks.bounds(block)[0]] = np.arange(len(rows))
            found = found.drop_columns([ROW]).take(pa.array(order))
            joined |= dict(zip(found.column_names, found.columns, strict=True))
        table = with_service_columns(labels, joined, self.service)
        write_rows(table, self.folder / f"part-{block:06}.parquet")
        return block_digest(table)


def _block_file(folder: Path, block: int) -> Path:
    return folder / f"labels-{block}.parquet"
