"""Features made of two others of the same view: ratios and differences."""

from typing import Literal, assert_never

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.decimals import nearest_doubles
from konveyer.core.schema import MOST_DIGITS
from konveyer.feature_store.kernel.errors import NumberOverflow

Operation = Literal["ratio", "difference"]


def derive(operation: Operation, left: pa.Array, right: pa.Array) -> pa.Array:
    """Null where either is null; a ratio is a float64, and null where `right` is 0.

    A difference of whole numbers or decimals is exact; one that 64 bits, or 38 digits, cannot hold
    is a `NumberOverflow`.

    >>> derive("ratio", pa.array([1, 2]), pa.array([4, 0])).to_pylist()
    [0.25, None]
    """
    match operation:
        case "ratio":
            divisor = _doubles(right)
            usable = pc.if_else(pc.equal(divisor, 0.0), None, divisor)
            return pc.divide(_doubles(left), usable)
        case "difference":
            return _difference(left, right)
        case _:
            assert_never(operation)


def _difference(left: pa.Array, right: pa.Array) -> pa.Array:
    types = (left.type, right.type)
    if any(pa.types.is_floating(one) for one in types):
        left, right = _doubles(left), _doubles(right)
    elif any(pa.types.is_decimal(one) for one in types):
        return _decimal_difference(left, right)
    try:
        return pc.subtract_checked(left, right)
    except pa.ArrowInvalid as error:
        raise NumberOverflow("A difference") from error


def _decimal_difference(left: pa.Array, right: pa.Array) -> pa.Array:
    """With room for a digit more than the result may have, so that too many are seen."""
    scale = max(one.type.scale for one in (left, right) if pa.types.is_decimal(one.type))
    wide = pa.decimal256(2 * MOST_DIGITS - 1, scale)
    try:
        exact = pc.subtract_checked(left.cast(wide), right.cast(wide))
        return exact.cast(pa.decimal128(MOST_DIGITS, scale))
    except pa.ArrowInvalid as error:
        raise NumberOverflow("A difference", f"{MOST_DIGITS} digits") from error


def _doubles(values: pa.Array) -> pa.Array:
    if pa.types.is_decimal(values.type):
        return nearest_doubles(values)
    return values.cast(pa.float64(), safe=False)  # a whole number above 2^53 as the nearest
