"""The column types that features, labels and requests are made of."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import pyarrow as pa
from msgspec import Struct

from konveyer.core.errors import KonveyerError

MOST_DIGITS = 38
_DECIMAL = re.compile(r"decimal\((\d{1,3}), ?(\d{1,3})\)")
_LIST = re.compile(r"list<(\w+)>")


class UnsupportedType(KonveyerError):
    """A type that no column can have here."""

    code = "unsupported_type"


class ColumnType(StrEnum):
    """The types of one value. Every type has a null.

    A UUID is a join key only; it is held as text in its canonical form (lower case, hyphens).
    """

    INT64 = "int64"
    FLOAT64 = "float64"
    BOOL = "bool"
    STRING = "string"
    TIMESTAMP = "timestamp"
    UUID = "uuid"

    @property
    def arrow(self) -> pa.DataType:
        match self:
            case ColumnType.INT64:
                return pa.int64()
            case ColumnType.FLOAT64:
                return pa.float64()
            case ColumnType.BOOL:
                return pa.bool_()
            case ColumnType.STRING | ColumnType.UUID:
                return pa.string()
            case ColumnType.TIMESTAMP:
                return pa.timestamp("us", tz="UTC")
            case _:
                assert_never(self)

    @property
    def is_number(self) -> bool:
        return self in (ColumnType.INT64, ColumnType.FLOAT64)


ITEMS = (ColumnType.INT64, ColumnType.FLOAT64, ColumnType.BOOL, ColumnType.STRING)


class DecimalType(Struct, frozen=True, tag="decimal"):
    """Fractions with `scale` digits after the point, of `precision` digits in all.

    >>> str(DecimalType(18, 2))
    'decimal(18,2)'
    """

    precision: int
    scale: int

    def __str__(self) -> str:
        return f"decimal({self.precision},{self.scale})"

    @property
    def arrow(self) -> pa.DataType:
        return pa.decimal128(self.precision, self.scale)

    @property
    def is_number(self) -> bool:
        return True

    def holds(self, other: "DecimalType") -> bool:
        """Whether every value of `other` is one of this type.

        >>> amount = DecimalType(18, 2)
        >>> amount.holds(DecimalType(16, 0)), amount.holds(DecimalType(9, 4))
        (True, False)
        """
        whole, other_whole = self.precision - self.scale, other.precision - other.scale
        return self.scale >= other.scale and whole >= other_whole


class ListType(Struct, frozen=True, tag="list"):
    """Any number of values of one type, in order; each may be null. The list may be null too.

    >>> ListType(ColumnType.FLOAT64).arrow
    ListType(list<item: double>)
    """

    item: ColumnType

    def __str__(self) -> str:
        return f"list<{self.item}>"

    @property
    def arrow(self) -> pa.DataType:
        return pa.list_(self.item.arrow)

    @property
    def is_number(self) -> bool:
        return False


Dtype = ColumnType | DecimalType | ListType


@dataclass(frozen=True, slots=True)
class Column:
    """A name and a type.

    >>> Column("amount", ColumnType.FLOAT64).dtype.arrow
    DataType(double)
    """

    name: str
    dtype: Dtype


@dataclass(frozen=True, slots=True)
class ScalarColumn(Column):
    """A column of plain values: a join key, a request field, an on-demand feature."""

    dtype: ColumnType


def parse_dtype(text: str) -> Dtype:
    """The inverse of `str`.

    >>> parse_dtype("decimal(18, 2)"), parse_dtype("list<string>").item.value
    (DecimalType(precision=18, scale=2), 'string')
    """
    if text in set(ColumnType):
        return ColumnType(text)
    decimal = _DECIMAL.fullmatch(text)
    if decimal is not None:
        precision, scale = int(decimal[1]), int(decimal[2])
        if 1 <= precision <= MOST_DIGITS and scale <= precision:
            return DecimalType(precision, scale)
        raise UnsupportedType(
            f"There is no type '{text}'.",
            hint=f"a decimal(p,s) has 1 to {MOST_DIGITS} digits, s of them after the point",
        )
    listed = _LIST.fullmatch(text)
    if listed is not None and listed[1] in ITEMS:
        return ListType(ColumnType(listed[1]))
    raise UnsupportedType(
        f"There is no type '{text}'.",
        hint=f"use one of {', '.join(ColumnType)}, decimal(p,s), or a list<...> of "
        f"{', '.join(ITEMS)}",
    )


def column_type(arrow: pa.DataType, *, where: str) -> Dtype:
    """The column type that holds every value of `arrow` exactly.

    >>> str(column_type(pa.int32(), where="x")), str(column_type(pa.decimal128(9, 2), where="x"))
    ('int64', 'decimal(9,2)')
    """
    if _is_list(arrow):
        item = _scalar_type(arrow.value_type)
        if item in ITEMS:
            return ListType(item)
    elif pa.types.is_decimal(arrow):
        if arrow.precision <= MOST_DIGITS and 0 <= arrow.scale <= arrow.precision:
            return DecimalType(arrow.precision, arrow.scale)
    else:
        found = _scalar_type(arrow)
        if found is not None:
            return found
    raise UnsupportedType(
        f"{where} has type {arrow}, which a feature cannot have.",
        hint=f"cast it in SQL to one of {', '.join(ColumnType)}, decimal(p,s), or a list of "
        f"{', '.join(ITEMS)}",
    )


def _is_list(arrow: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_one(arrow) for is_one in kinds)


def _scalar_type(arrow: pa.DataType) -> ColumnType | None:
    types = pa.types
    if types.is_integer(arrow) and arrow != pa.uint64():
        return ColumnType.INT64
    if types.is_floating(arrow):
        return ColumnType.FLOAT64
    if types.is_boolean(arrow):
        return ColumnType.BOOL
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow):
        return ColumnType.STRING
    if isinstance(arrow, pa.UuidType):
        return ColumnType.UUID
    if types.is_timestamp(arrow) or types.is_date(arrow):
        return ColumnType.TIMESTAMP
    return None


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.dtype.arrow) for column in columns])


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column of categories; another column as it is.

    >>> decoded(pa.chunked_array([pa.array(["a", None]).dictionary_encode()])).to_pylist()
    ['a', None]
    """
    if not pa.types.is_dictionary(column.type):
        return column
    # Polars keeps the texts of categories as views, which Arrow cannot look up.
    kind = column.type.value_type
    kind = pa.string() if pa.types.is_string_view(kind) else kind
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(kind))
        for chunk in column.chunks
    ]
    return pa.chunked_array([chunk.dictionary_decode() for chunk in chunks], kind)
