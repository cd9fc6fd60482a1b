"""The column types that features, labels and requests are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import pyarrow as pa

from konveyer.core.errors import KonveyerError


class UnsupportedType(KonveyerError):
    """An Arrow type that has no column type here."""

    code = "unsupported_type"


class ColumnType(StrEnum):
    """What a value can be. Every type has a null.

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


@dataclass(frozen=True, slots=True)
class Column:
    """A name and a type.

    >>> Column("amount", ColumnType.FLOAT64).dtype.arrow
    DataType(double)
    """

    name: str
    dtype: ColumnType


def column_type(arrow: pa.DataType, *, where: str) -> ColumnType:
    """The column type that holds every value of `arrow` exactly.

    >>> column_type(pa.int32(), where="x").value
    'int64'
    """
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
    raise UnsupportedType(
        f"{where} has type {arrow}, which a feature cannot have.",
        hint=f"cast it in SQL to one of {', '.join(ColumnType)}",
    )


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([(column.name, column.dtype.arrow) for column in columns])
