"""How a row of features becomes the bytes of an online record, and back.

A record is: 8 bytes of schema fingerprint, 8 of event time (little-endian microseconds), one null
byte for each column, then 8 bytes for each column (1 for booleans, 16 for a decimal without its
point). For texts and lists those 8 bytes are a length, and what is so long follows in order: UTF-8,
and lists in MessagePack, which keeps every bit of a number. Reading needs neither Arrow nor NumPy.
"""

import struct
from collections.abc import Sequence
from decimal import Context, Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from konveyer.core.digest import digest_value
from konveyer.core.errors import KonveyerError
from konveyer.core.schema import MOST_DIGITS, Column, ColumnType, DecimalType, Dtype, ListType

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

Value = int | float | bool | str | Decimal | list[Any] | None


class SchemaMismatch(KonveyerError):
    """A record was written by a version of the view with other columns."""

    code, status = "online_schema_mismatch", HTTPStatus.SERVICE_UNAVAILABLE


def encode_key(values: Sequence[int | str]) -> bytes:
    """The bytes of an entity's join keys; keys that concatenate alike differ.

    >>> encode_key([1, "a"]) != encode_key(["1", "a"])
    True
    """
    if len(values) == 1:
        return _encoded(values[0])
    return b"".join([_encoded(value) for value in values])


def _encoded(value: int | str) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return b"s" + len(text).to_bytes(4, "big") + text
    return b"i" + value.to_bytes(8, "big", signed=True)


def _format(dtype: Dtype) -> str:
    """Of the fixed part of a value, in the letters of `struct`."""
    match dtype:
        case ColumnType.FLOAT64:
            return "d"
        case ColumnType.BOOL:
            return "?"
        case ColumnType.INT64 | ColumnType.TIMESTAMP | ColumnType.STRING | ColumnType.UUID:
            return "q"
        case DecimalType():
            return "16s"
        case ListType():
            return "q"
        case _:
            assert_never(dtype)


_NUMPY = {"d": "<f8", "?": "?", "q": "<i8", "16s": "V16"}


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
        self._formats = [_format(column.dtype) for column in columns]
        self._count = len(self.columns)
        self._fixed = struct.Struct(f"<8sq{self._count}s{''.join(self._formats)}")
        self._no_nulls = bytes(self._count)
        types = [column.dtype for column in columns]
        self._decimals = tuple(
            (place, -dtype.scale)
            for place, dtype in enumerate(types)
            if isinstance(dtype, DecimalType)
        )
        self._long = tuple(
            (place, isinstance(dtype, ListType))
            for place, dtype in enumerate(types)
            if dtype is ColumnType.STRING or isinstance(dtype, ListType)
        )
        self._digits = Context(prec=2 * MOST_DIGITS)

    def encode(self, rows: "pa.Table", event_us: "npt.ArrayLike") -> list[bytes]:
        """The record of each row, in order; `rows` has the codec's columns by name."""
        import numpy as np

        fields = [("mark", "S8"), ("event", "<i8"), ("nulls", "u1", (self._count,))]
        fields += [(f"c{place}", _NUMPY[kind]) for place, kind in enumerate(self._formats)]
        packed = np.zeros(len(rows), dtype=np.dtype(fields))
        packed["mark"], packed["event"] = self._mark, np.asarray(event_us, dtype=np.int64)
        long = []
        for place, column in enumerate(self.columns):
            array = rows.column(column.name).combine_chunks()
            packed["nulls"][:, place] = array.is_null()
            match column.dtype:
                case ColumnType.STRING | ListType():
                    encoded = _encoded_long(array, column.dtype)
                    long.append(encoded)
                    packed[f"c{place}"] = np.fromiter(map(len, encoded), np.int64, len(encoded))
                case _:
                    packed[f"c{place}"] = _fixed_values(array, column.dtype)
        whole, size = packed.tobytes(), packed.dtype.itemsize
        fixed = [whole[start : start + size] for start in range(0, len(whole), size)]
        return fixed if not long else [b"".join(parts) for parts in zip(fixed, *long, strict=True)]

    def decode(self, record: bytes) -> tuple[int, tuple[Value, ...]]:
        """The event time and the values, in the order of the columns."""
        mark, event_us, nulls, *values = self._fixed.unpack_from(record)
        if mark != self._mark:
            raise SchemaMismatch(
                "An online record has other columns than this reader expects.",
                hint="publish the view again: konveyer etl run",
            )
        start = self._fixed.size
        for place, is_list in self._long:
            end = start + values[place]
            if not is_list:
                values[place] = str(record[start:end], "utf-8")
            elif end > start:
                values[place] = msgspec.msgpack.decode(record[start:end])
            start = end
        for place, exponent in self._decimals:
            whole = int.from_bytes(values[place], "little", signed=True)
            values[place] = Decimal(whole).scaleb(exponent, self._digits)
        if nulls != self._no_nulls:
            values = [None if null else value for null, value in zip(nulls, values, strict=True)]
        return event_us, tuple(values)


def _encoded_long(array: "pa.Array", dtype: Dtype) -> list[bytes]:
    """Nothing for a null."""
    import pyarrow as pa

    if not isinstance(dtype, ListType):
        texts: list[bytes] = array.cast(pa.binary()).fill_null(b"").to_pylist()
        return texts
    encode = msgspec.msgpack.Encoder().encode
    return [b"" if value is None else encode(value) for value in array.to_pylist()]


def _fixed_values(array: "pa.Array", dtype: Dtype) -> "npt.NDArray[Any]":
    import numpy as np
    import pyarrow as pa

    from konveyer.core.decimals import words_of

    if isinstance(dtype, DecimalType):
        return np.ascontiguousarray(np.column_stack(words_of(array))).view("V16").reshape(-1)
    if dtype is ColumnType.TIMESTAMP:
        array = array.cast(pa.int64())
    filled = array.fill_null(False if dtype is ColumnType.BOOL else 0)
    return np.asarray(filled.to_numpy(zero_copy_only=False))
