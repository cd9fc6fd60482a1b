"""The prediction log at rest: segments become Parquet files, and both are read alike."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from konveyer.core.clock import format_us, from_us
from konveyer.core.files import file_written_whole, locked
from konveyer.core.storage import ObjectMissing, Storage
from konveyer.execution.serving.prediction_log import Prediction
from konveyer.execution.serving.segments import CLOSED, OPEN, ready_segments

PACKED = ".parquet"
_ROWS_A_GROUP = 20_000
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("environment", pa.string()),
        ("application", pa.string()),
        ("api_version", pa.int64()),
        ("bundle", pa.string()),
        ("release", pa.string()),
        ("side", pa.string()),
        ("caller", pa.string()),
        ("status", pa.int64()),
        ("error", pa.string()),
        ("keys", pa.string()),
        ("request", pa.string()),
        ("given", pa.string()),
        ("fallbacks", pa.string()),
        ("features", pa.string()),
        ("outputs", pa.string()),
        ("prediction", pa.float64()),
        ("latency_us", pa.int64()),
    ]
)
LISTS = ("keys", "request", "given", "fallbacks", "features", "outputs")
_encoder = msgspec.json.Encoder()
_log = logging.getLogger(__name__)


def pack_segments(folder: Path) -> int:
    """Make Parquet of the segments that nobody writes any more; how many they were.

    Also of those whose process died: what it wrote of its last line only is left out. A segment
    with lines that a broken disk damaged is kept aside. One process packs at a time; killed in the
    middle, it leaves a segment that the next one packs.
    """
    packed = 0
    with locked(folder / ".packing"):
        for path in ready_segments(folder):
            target = path.with_suffix(PACKED)
            with file_written_whole(target) as draft, pq.ParquetWriter(draft, SCHEMA) as writer:
                rows: list[Prediction] = []
                segment = _Segment(path.name, path.read_bytes())
                for row in segment.rows():
                    rows.append(row)
                    if len(rows) == _ROWS_A_GROUP:
                        writer.write_table(_as_table(rows))
                        rows.clear()
                if rows:
                    writer.write_table(_as_table(rows))
            if segment.damaged:
                path.rename(path.with_name(f"{path.name}.damaged"))
            else:
                path.unlink()
            packed += 1
    return packed


def read_file(storage: Storage, name: str, request_prefix: str) -> Iterator[dict[str, Any]]:
    """The rows of one file, newest first, lists as JSON; of requests that begin with the prefix.

    A segment may be closed or packed meanwhile: then it is read where it is now.
    """
    stem, _, kind = name.rpartition(".")
    kinds = (OPEN, CLOSED, PACKED)
    for suffix in kinds[kinds.index(f".{kind}") :]:
        try:
            content = storage.read(stem + suffix)
        except ObjectMissing:
            continue
        if suffix == PACKED:
            condition = pc.starts_with(pc.field("request_id"), request_prefix)
            yield from _unpacked(name, content).filter(condition).to_pylist()[::-1]
        else:
            rows = _Segment(name, content).rows()
            for row in reversed([one for one in rows if one.request_id.startswith(request_prefix)]):
                yield _columns(row) | {"at": from_us(row.at_us)}
        return


def read_columns(storage: Storage, name: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of one file, oldest row first; like `read_file`, for very many rows."""
    stem, _, kind = name.rpartition(".")
    kinds = (OPEN, CLOSED, PACKED)
    for suffix in kinds[kinds.index(f".{kind}") :]:
        try:
            content = storage.read(stem + suffix)
        except ObjectMissing:
            continue
        if suffix == PACKED:
            return _unpacked(name, content, columns)
        rows = list(_Segment(name, content).rows())
        return (_as_table(rows) if rows else SCHEMA.empty_table()).select([*columns])
    return SCHEMA.empty_table().select([*columns])


def newest_first(storage: Storage, folder: str, since: str = "") -> Iterator[str]:
    """The files below a folder: those in folders of hours, then those beside these.

    Names begin with their time. Folders of hours and days that end before `since`, which is such a
    folder too, are not looked into.
    """
    found = sorted(storage.listed(folder), key=lambda one: one.name, reverse=True)
    for part in (one.name for one in found if one.is_folder):
        if part >= since[: len(part)]:
            yield from newest_first(storage, part, since)
    kinds: dict[str, str] = {}
    for one in found:
        stem, dot, kind = one.name.rpartition(".")
        is_hidden = one.last_part.startswith(".")
        if dot + kind in (PACKED, CLOSED, OPEN) and not is_hidden and not one.is_folder:
            # Between packing and removing a segment there are both.
            kinds[stem] = PACKED if dot + kind == PACKED else kinds.get(stem, dot + kind)
    yield from (stem + kinds[stem] for stem in sorted(kinds, reverse=True))


class _Segment:
    """The content of a segment; `damaged` counts the lines that `rows` had to leave out.

    A process that was killed may have left half a line at the end, which is not damaged.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self._name, self._content = name, content
        self.damaged = 0

    def rows(self) -> Iterator[Prediction]:
        decoder = msgspec.json.Decoder(Prediction)
        for number, line in enumerate(self._content.split(b"\n")[:-1], start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self.damaged += 1
                _log.error("line %d of %s is damaged and left out: %s", number, self._name, error)


def _unpacked(name: str, content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a packed file, none of one that a broken disk damaged."""
    chosen = SCHEMA.names if columns is None else [*columns]
    try:
        return pq.read_table(pa.BufferReader(content), schema=SCHEMA, columns=chosen)
    except (pa.ArrowException, OSError) as error:
        _log.error("%s of the prediction log is damaged and left out: %s", name, error)
        return SCHEMA.empty_table().select(chosen)


def _as_table(entries: list[Prediction]) -> pa.Table:
    """Through JSON lines, which Arrow parses in C++; `pa.array` would import pandas if it could."""
    lines = _encoder.encode_lines(
        [_columns(entry) | {"at": format_us(entry.at_us)} for entry in entries]
    )
    options = pj.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="error")
    read = pj.ReadOptions(use_threads=False, block_size=len(lines))
    return pj.read_json(pa.BufferReader(lines), read_options=read, parse_options=options)


def _columns(entry: Prediction) -> dict[str, Any]:
    columns = msgspec.structs.asdict(entry)
    del columns["at_us"]
    for name in LISTS:
        columns[name] = _encoder.encode(columns[name]).decode()
    return columns


if __name__ == "__main__":
    import sys

    os.nice(10)
    pack_segments(Path(sys.argv[1]))
