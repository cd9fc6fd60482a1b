"""How a row of features becomes the bytes of an online record, and back.

A record is: 8 bytes of schema fingerprint, 8 of event time (little-endian microseconds), one null
byte for each column, then 8 bytes for each column (1 for booleans); for text those 8 bytes are its
length, and the UTF-8 texts follow in order. Reading needs neither Arrow nor NumPy.
"""

import struct
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from konveyer.core.digest import digest_value
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import Column, ColumnType

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

_FORMATS = {
    ColumnType.INT64: "q",
    ColumnType.FLOAT64: "d",
    ColumnType.BOOL: "?",
    ColumnType.STRING: "q",
    ColumnType.TIMESTAMP: "q",
}
Value = int | float | bool | str | None


class SchemaMismatch(KonveyerError):
    """A record was written by a version of the view with other columns."""

    code, status = "online_schema_mismatch", HTTPStatus.SERVICE_UNAVAILABLE


def encode_key(values: Sequence[int | str]) -> bytes:
    """The bytes of an entity's join keys; keys that concatenate alike differ.

    >>> encode_key([1, "a"]) != encode_key(["1", "a"])
    True
    """
    return b"".join([_encoded(value) for value in values])


def _encoded(value: int | str) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return b"s" + len(text).to_bytes(4, "big") + text
    return b"i" + value.to_bytes(8, "big", signed=True)


class RecordCodec:
    """Encodes and decodes the records of one list of columns. Immutable; any thread may use it.

    >>> codec = RecordCodec((Column("n", ColumnType.INT64), Column("city", ColumnType.STRING)))
    >>> import pyarrow as pa
    >>> rows = pa.table({"n": [7, None], "city": ["Oslo", None]})
    >>> [codec.decode(value) for value in codec.encode(rows, [1, 2])]
    [(1, (7, 'Oslo')), (2, (None, None))]
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.fingerprint = digest_value([[column.name, column.dtype] for column in columns])
        self._mark = bytes.fromhex(self.fingerprint.removeprefix("sha256:"))[:8]
        formats = "".join(_FORMATS[column.dtype] for column in columns)
        self._count = len(self.columns)
        self._fixed = struct.Struct(f"<8sq{self._count}s{formats}")
        self._no_nulls = bytes(self._count)
        self._texts = tuple(
            place for place, column in enumerate(columns) if column.dtype is ColumnType.STRING
        )

    def encode(self, rows: "pa.Table", event_us: "npt.ArrayLike") -> list[bytes]:
        """The record of each row, in order; `rows` has the codec's columns by name."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        fields = [("mark", "S8"), ("event", "<i8"), ("nulls", "u1", (self._count,))]
        kinds = [_FORMATS[column.dtype] for column in self.columns]
        fields += [(f"c{n}", "?" if kind == "?" else f"<{kind}") for n, kind in enumerate(kinds)]
        packed = np.zeros(len(rows), dtype=np.dtype(fields))
        packed["mark"], packed["event"] = self._mark, np.asarray(event_us, dtype=np.int64)
        texts = []
        for place, column in enumerate(self.columns):
            array = rows.column(column.name).combine_chunks()
            packed["nulls"][:, place] = array.is_null()
            if column.dtype is ColumnType.STRING:
                encoded = array.cast(pa.binary()).fill_null(b"")
                texts.append(encoded.to_pylist())
                packed[f"c{place}"] = pc.binary_length(encoded)
                continue
            if column.dtype is ColumnType.TIMESTAMP:
                array = array.cast(pa.int64())
            filled = array.fill_null(False if column.dtype is ColumnType.BOOL else 0)
            packed[f"c{place}"] = filled.to_numpy(zero_copy_only=False)
        whole, size = packed.tobytes(), packed.dtype.itemsize
        fixed = [whole[start : start + size] for start in range(0, len(whole), size)]
        return (
            fixed if not texts else [b"".join(parts) for parts in zip(fixed, *texts, strict=True)]
        )

    def decode(self, record: bytes) -> tuple[int, tuple[Value, ...]]:
        """The event time and the values, in the order of the columns."""
        mark, event_us, nulls, *values = self._fixed.unpack_from(record)
        if mark != self._mark:
            raise SchemaMismatch(
                "An online record has other columns than this reader expects.",
                hint="publish the view again: konveyer etl run",
            )
        start = self._fixed.size
        for place in self._texts:
            end = start + values[place]
            values[place] = str(record[start:end], "utf-8")
            start = end
        if nulls != self._no_nulls:
            values = [None if null else value for null, value in zip(nulls, values, strict=True)]
        return event_us, tuple(values)
