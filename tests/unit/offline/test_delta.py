"""Offline tables on disk: versions that last, and one bucket replaced."""

import os
import time
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from konveyer.feature_store.offline.delta import DeltaOfflineStore
from konveyer.feature_store.offline.table_version import TableRef

MONTHS_S = 90 * 86_400


def write(store: DeltaOfflineStore, *values: int) -> TableRef:
    """Each value is in the bucket that is its last bit."""
    rows = pa.table(
        {"bucket": pa.array([value % 2 for value in values], pa.int32()), "client": values}
    )
    batches = rows.sort_by("bucket").to_batches()
    ref, _ = store.write("spend", "v", rows.schema, lambda write: write(iter(batches)), buckets=2)
    return ref


def clients(store: DeltaOfflineStore, ref: TableRef) -> list[list[int]]:
    table = store.open(ref)
    return [table.read(bucket).table["client"].to_pylist() for bucket in range(2)]


def test_old_versions_can_be_read_after_months_and_many_writes(tmp_path: Path) -> None:
    """Delta itself forgets the versions before a checkpoint that is a month old."""
    store = DeltaOfflineStore(tmp_path)
    first = write(store, 1)
    folder = store.folder_of("spend", "v")
    write(store, 2)
    DeltaTable(str(folder)).create_checkpoint()
    long_ago = time.time() - MONTHS_S
    for path in (folder / "_delta_log").iterdir():
        os.utime(path, (long_ago, long_ago))
    for value in range(100):
        last = write(store, value)
    assert last.table_version == 101
    assert (folder / "_delta_log" / f"{99:020d}.checkpoint.parquet").exists()
    assert clients(store, first) == [[], [1]]


def test_one_bucket_is_replaced_and_the_files_of_the_others_stay(tmp_path: Path) -> None:
    store = DeltaOfflineStore(tmp_path)
    ref = write(store, 0, 1, 2, 3, 5)
    write(store, 9)  # a later version that was never readable
    new = store.write_bucket(ref, 1, pa.table({"client": [5, 3]}))
    assert clients(store, new) == [[0, 2], [5, 3]]
    assert clients(store, ref) == [[0, 2], [1, 3, 5]]
    assert store.open(new).files[0] == store.open(ref).files[0]
    empty = store.write_bucket(new, 1, pa.table({"client": pa.array([], pa.int64())}))
    assert clients(store, empty) == [[0, 2], []]
