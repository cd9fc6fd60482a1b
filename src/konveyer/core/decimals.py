"""Decimals as the whole numbers that they are made of, and as fractions: exact, or the nearest.

A decimal128 is a whole number of 128 bits, which stands here as two words: the lower 64 bits, and
the upper 64 bits with the sign.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

# A decimal of no more digits is its lower word alone.
DIGITS_OF_A_WORD = 18
_DIGITS_OF_INT64 = 19
_EXACT = 2**53
_EXACT_POWER = 22
Words = npt.NDArray[np.int64]


def words_of(values: pa.Array | pa.ChunkedArray) -> tuple[Words, Words]:
    """The lower and upper words of each decimal, without its point; 0 for a null.

    >>> from decimal import Decimal
    >>> [part.tolist() for part in words_of(pa.array([Decimal("-1.50"), None]))]
    [[-150, 0], [-1, 0]]
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    whole = values.cast(pa.decimal128(values.type.precision, values.type.scale)).fill_null(0)
    if not len(whole):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    pairs = np.frombuffer(whole.buffers()[1], "<i8").reshape(-1, 2)
    pairs = pairs[whole.offset : whole.offset + len(whole)]
    return pairs[:, 0], pairs[:, 1]


def decimals_of(
    lower: Words, upper: Words, dtype: pa.DataType, valid: npt.NDArray[np.bool_]
) -> pa.Array:
    """The inverse of `words_of`; null where not `valid`."""
    pairs = np.empty((len(lower), 2), "<i8")
    pairs[:, 0], pairs[:, 1] = lower, upper
    array = pa.Array.from_buffers(dtype, len(lower), [None, pa.py_buffer(pairs)])
    return array if valid.all() else pc.if_else(pa.array(valid), array, pa.scalar(None, dtype))


def whole_as_decimals(
    values: pa.Array | pa.ChunkedArray, dtype: pa.DataType
) -> pa.Array | pa.ChunkedArray:
    """Whole numbers as decimals; raises `pa.ArrowInvalid` where one does not fit.

    >>> whole_as_decimals(pa.array([7]), pa.decimal128(5, 2)).to_pylist()
    [Decimal('7.00')]
    """
    # Arrow refuses types that could not hold all numbers of 64 bits.
    return values.cast(pa.decimal128(_DIGITS_OF_INT64, 0)).cast(dtype)


def nearest_doubles(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The float64 next to each decimal, as `float` gives it; Arrow's own cast may be one off.

    >>> from decimal import Decimal
    >>> nearest_doubles(pa.array([Decimal("0.10"), None])).to_pylist()
    [0.1, None]
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    lower, upper = words_of(values)
    # Both numbers are exact, and a division of IEEE 754 gives the nearest quotient.
    exact = upper == lower >> 63
    if values.type.scale:  # a whole number is rounded once, when it becomes a double
        exact &= (lower <= _EXACT) & (lower >= -_EXACT) & (values.type.scale <= _EXACT_POWER)
    floats = lower / 10.0 ** min(values.type.scale, _EXACT_POWER)
    rest = np.flatnonzero(~exact & np.asarray(values.is_valid()))
    if len(rest):
        floats[rest] = [float(value) for value in values.take(pa.array(rest)).to_pylist()]
    return pa.array(floats, mask=np.asarray(values.is_null()))
