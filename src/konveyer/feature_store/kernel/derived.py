"""Features made of two others of the same view: ratios and differences."""

from typing import Literal, assert_never

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.feature_store.kernel.errors import NumberOverflow

Operation = Literal["ratio", "difference"]


def derive(operation: Operation, left: pa.Array, right: pa.Array) -> pa.Array:
    """Null where either is null; a ratio is a float64, and null where `right` is 0.

    A difference of whole numbers is exact; one that 64 bits cannot hold is a `NumberOverflow`.

    >>> derive("ratio", pa.array([1, 2]), pa.array([4, 0])).to_pylist()
    [0.25, None]
    """
    match operation:
        case "ratio":
            divisor = right.cast(pa.float64())
            usable = pc.if_else(pc.equal(divisor, 0.0), None, divisor)
            return pc.divide(left.cast(pa.float64()), usable)
        case "difference":
            try:
                return pc.subtract_checked(left, right)
            except pa.ArrowInvalid as error:
                raise NumberOverflow("A difference") from error
        case _:
            assert_never(operation)
