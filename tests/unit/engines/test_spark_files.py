"""What is said of files that are made ready for Spark."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from konveyer.core.errors import DiskFull
from konveyer.feature_store.engines.spark_files import dataset_files


def test_a_full_disk_is_no_damaged_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    rows = pa.dataset.dataset(pa.table({"n": [1]}))
    with pytest.raises(DiskFull):
        dataset_files("payments", rows, tmp_path)
