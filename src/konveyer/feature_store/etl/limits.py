"""Which values a definition does not accept, found with Arrow alone: for a few rows, in a moment.

The same rules as in `quality`, which loads libraries that take a second and more.
"""

from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.core.schema import MOST_DIGITS
from konveyer.feature_store.definitions.aggregation import Aggregation
from konveyer.feature_store.definitions.derived import Derived
from konveyer.feature_store.definitions.pushed import PushedColumn
from konveyer.feature_store.definitions.view import Feature

# Of a double as it is written there are never more.
_DIGITS = 800
Limited = Feature | Aggregation | Derived | PushedColumn


def outside(of: Limited, values: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
    """The place of each value that is not accepted, counted from 0, and what is wrong with it.

    >>> amount = PushedColumn("amount", "float64", minimum=0)
    >>> list(outside(amount, pa.chunked_array([[1.0, None, -2.0]])))
    [(2, '-2.0 is below the minimum 0')]
    """
    if isinstance(of, Feature | PushedColumn):
        if not of.nullable and values.null_count:
            yield from ((place, "it is null") for place in _places(values.is_null()))
        if of.one_of:
            unknown = pc.and_(pc.invert(pc.is_in(values, pa.array(of.one_of))), values.is_valid())
            wanted = ", ".join(of.one_of)
            yield from _told(values, unknown, f"is not one of {wanted}")
    if of.minimum is not None:
        below = pc.less(values, bound(of.minimum, values.type, ROUND_CEILING))
        yield from _told(values, below, f"is below the minimum {of.minimum:g}")
    if of.maximum is not None:
        above = pc.greater(values, bound(of.maximum, values.type, ROUND_FLOOR))
        if pa.types.is_floating(values.type):
            above = pc.or_(above, pc.is_nan(values))
        yield from _told(values, above, f"is above the maximum {of.maximum:g}")


def bound(limit: float, kind: pa.DataType, rounding: str) -> pa.Scalar:
    """A limit as values of type `kind` are compared to it: exactly, with decimals as it is written.

    >>> bound(0.101, pa.decimal128(9, 2), ROUND_CEILING).as_py()
    Decimal('0.11')
    >>> bound(0.5, pa.int64(), ROUND_FLOOR).as_py()
    0
    """
    if pa.types.is_integer(kind):
        # Compared as fractions, whole numbers above 2^53 would lose digits, which Arrow refuses.
        return pa.scalar(_whole(Decimal(limit), 0, rounding, -(2**63), 2**63 - 1), pa.int64())
    if not pa.types.is_decimal(kind):
        return pa.scalar(limit)
    most = 10**MOST_DIGITS - 1
    whole = Decimal(_whole(Decimal(repr(limit)), kind.scale, rounding, -most, most))
    nearest = whole.scaleb(-kind.scale, Context(prec=_DIGITS))
    return pa.scalar(nearest, pa.decimal128(MOST_DIGITS, kind.scale))


def _whole(limit: Decimal, scale: int, rounding: str, least: int, most: int) -> int:
    """The limit in units of the last of `scale` digits, and inside of `least` and `most`."""
    digits = Context(prec=_DIGITS, rounding=rounding)
    whole = int(limit.scaleb(scale, digits).to_integral_value(rounding))
    return min(max(whole, least), most)


def _told(
    values: pa.ChunkedArray, wrong: pa.ChunkedArray, problem: str
) -> Iterator[tuple[int, str]]:
    for place in _places(wrong):
        yield place, f"{_shown(values[place].as_py())} {problem}"


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else repr(value)


def _places(wrong: pa.ChunkedArray) -> list[int]:
    found: list[int] = pc.indices_nonzero(wrong.fill_null(False)).to_pylist()
    return found
