"""Which values a definition does not accept, found with Arrow alone: the same for a push of a few
rows, in a moment, and for a bucket of millions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import numpy as np
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


@dataclass(frozen=True, slots=True)
class Breach:
    """Values that are not accepted, all for one reason: `wrong` says of each whether it is one."""

    rule: str
    what: str
    wrong: pa.ChunkedArray

    @property
    def places(self) -> list[int]:
        """Where they are, counted from 0."""
        return places_of(self.wrong)


def places_of(wrong: pa.ChunkedArray) -> list[int]:
    """The places of what is true, counted from 0.

    >>> places_of(pa.chunked_array([[True, None], [True]]))
    [0, 2]
    """
    # Not with Arrow's indices_nonzero, which ends the process where there are no chunks.
    found: list[int] = np.flatnonzero(wrong.fill_null(False).to_numpy()).tolist()
    return found


def breaches(of: Limited, values: pa.ChunkedArray) -> Iterator[Breach]:
    """What there may be of each rule of the definition, also when no value is against it.

    >>> amount = PushedColumn("amount", "float64", minimum=0)
    >>> [(one.what, one.places) for one in breaches(amount, pa.chunked_array([[1.0, None, -2.0]]))]
    [('below the minimum 0', [2])]
    """
    if isinstance(of, Feature | PushedColumn):
        if not of.nullable:
            yield Breach("nullable", "null", values.is_null())
        if of.one_of:
            unknown = pc.and_(pc.invert(pc.is_in(values, pa.array(of.one_of))), values.is_valid())
            yield Breach("one_of", f"not one of {', '.join(of.one_of)}", unknown)
    if of.minimum is not None:
        below = pc.less(values, bound(of.minimum, values.type, ROUND_CEILING))
        yield Breach("minimum", f"below the minimum {of.minimum:g}", below)
    if of.maximum is not None:
        above = pc.greater(values, bound(of.maximum, values.type, ROUND_FLOOR))
        if pa.types.is_floating(values.type):
            above = pc.or_(above, pc.is_nan(values))
        yield Breach("maximum", f"above the maximum {of.maximum:g}", above)


def outside(of: Limited, values: pa.ChunkedArray) -> Iterator[tuple[int, str]]:
    """The place of each value that is not accepted, counted from 0, and what is wrong with it.

    >>> amount = PushedColumn("amount", "float64", minimum=0)
    >>> list(outside(amount, pa.chunked_array([[1.0, None, -2.0]])))
    [(2, '-2.0 is below the minimum 0')]
    """
    for breach in breaches(of, values):
        for place in breach.places:
            yield place, f"{shown(values[place].as_py())} is {breach.what}"


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


def shown(value: object) -> str:
    """A value in a sentence: text in quotes, a decimal as it is written, null as `it`."""
    if value is None:
        return "it"
    return str(value) if isinstance(value, Decimal) else repr(value)
