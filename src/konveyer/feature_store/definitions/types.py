"""The types that definitions name in words."""

from konveyer.core.schema import (
    ColumnType,
    DecimalType,
    Dtype,
    ListType,
    UnsupportedType,
    parse_dtype,
)
from konveyer.feature_store.definitions.errors import BadDefinition

SCALARS = tuple(dtype for dtype in ColumnType if dtype is not ColumnType.UUID)
_WITH_DECIMALS = f"use one of {', '.join(SCALARS)}, or decimal(p,s)"


def value_type(text: str, *, where: str) -> Dtype:
    """The type of a feature or a pushed column: any but a UUID. Raises `BadDefinition`."""
    try:
        found = parse_dtype(text)
    except UnsupportedType as error:
        raise BadDefinition(f"{where} has type '{text}'.", hint=error.hint) from error
    if found is ColumnType.UUID:
        raise BadDefinition(f"{where} has type '{text}'.", hint="use string: only keys are UUIDs")
    return found


def flat_type(text: str, *, where: str) -> ColumnType | DecimalType:
    """The type of a column of CSV or of a database, which is no list. Raises `BadDefinition`."""
    found = value_type(text, where=where)
    if isinstance(found, ListType):
        raise BadDefinition(f"{where} has type '{text}'.", hint=_WITH_DECIMALS)
    return found


def scalar_type(text: str, *, where: str) -> ColumnType:
    """The type of a request field or an on-demand feature. Raises `BadDefinition`."""
    found = value_type(text, where=where)
    if not isinstance(found, ColumnType):
        raise BadDefinition(f"{where} has type '{text}'.", hint=f"use one of {', '.join(SCALARS)}")
    return found
