"""Files of the prediction log on their way from a node's disk to shared storage.

Some are taken together into a parcel (a folder), which becomes one object of the same name. One
that is sent again is the same object, so a kill at any moment neither loses a row nor doubles one.
"""

import logging
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from konveyer.core.clock import now_us
from konveyer.core.files import locked
from konveyer.core.ids import new_id
from konveyer.core.storage import Storage
from konveyer.execution.serving.prediction_files import SCHEMA, pack_segments
from konveyer.execution.serving.segments import hour_folder

MOST_FILES, MOST_BYTES = 256, 64 * 2**20
_SENT = ".sent"
_log = logging.getLogger(__name__)


class Shipper:
    """Packs and sends the segments that appear in `folder`, the log of `environment`.

    Of those who ship from one folder only one is at work at a time.
    """

    def __init__(self, folder: Path, storage: Storage, environment: str) -> None:
        self._folder, self._storage, self._environment = folder, storage, environment
        self._parcels = folder / "parcels"

    def ship(self) -> int:
        """Send all there is; how many objects that were. Raises `StorageUnavailable` where it
        stopped, and goes on there when called again.
        """
        self._parcels.mkdir(parents=True, exist_ok=True)
        pack_segments(self._folder)
        with locked(self._parcels / ".lock"):
            return self._ship()

    def _ship(self) -> int:
        sent = 0
        for parcel in sorted(self._parcels.glob("[!.]*")):
            sent += self._send(parcel)
        while files := self._next_files():
            parcel = self._parcels / new_id(f"{now_us():016d}")
            parcel.mkdir()
            for file in files:
                file.rename(parcel / file.name)
            sent += self._send(parcel)
        return sent

    def _next_files(self) -> list[Path]:
        taken: list[Path] = []
        size_bytes = 0
        for file in sorted(self._folder.glob("*.parquet"))[:MOST_FILES]:
            size_bytes += file.stat().st_size
            if taken and size_bytes > MOST_BYTES:
                break
            taken.append(file)
        return taken

    def _send(self, parcel: Path) -> int:
        files = sorted(parcel.glob("*.parquet"))
        if files and not parcel.name.endswith(_SENT):
            whole = parcel / f".{parcel.name}"
            with pq.ParquetWriter(whole, SCHEMA, compression="zstd") as writer:
                for file in files:
                    writer.write_table(_rows(file))
            folder = hour_folder(self._environment, int(parcel.name.partition("-")[0]))
            self._storage.upload(whole, f"{folder}/{parcel.name}.parquet")
            # Sent or not is told by the name: half of a parcel must never be sent over the whole.
            parcel = parcel.rename(parcel.with_name(parcel.name + _SENT))
        shutil.rmtree(parcel)
        return int(bool(files))


def _rows(file: Path) -> pa.Table:
    """What a file has, in today's columns; one that a broken disk damaged is put aside."""
    try:
        found = pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        _log.error("%s of the prediction log is damaged and is put aside: %s", file.name, error)
        file.rename(file.parent.parent.parent / f"{file.name}.damaged")
        return SCHEMA.empty_table()
    return pa.table(
        {
            field.name: found.column(field.name)
            if field.name in found.column_names
            else pa.nulls(len(found), field.type)
            for field in SCHEMA
        },
        schema=SCHEMA,
    )
