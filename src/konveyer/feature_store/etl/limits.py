"""Which values a definition does not accept, found with Arrow alone: for a few rows, in a moment.

The same rules as in `quality`, which loads libraries that take a second and more.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from konveyer.feature_store.definitions.aggregation import Aggregation
from konveyer.feature_store.definitions.derived import Derived
from konveyer.feature_store.definitions.pushed import PushedColumn
from konveyer.feature_store.definitions.view import Feature

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
        below = pc.less(values, of.minimum)
        yield from _told(values, below, f"is below the minimum {of.minimum:g}")
    if of.maximum is not None:
        above = pc.greater(values, of.maximum)
        if pa.types.is_floating(values.type):
            above = pc.or_(above, pc.is_nan(values))
        yield from _told(values, above, f"is above the maximum {of.maximum:g}")


def _told(
    values: pa.ChunkedArray, wrong: pa.ChunkedArray, problem: str
) -> Iterator[tuple[int, str]]:
    for place in _places(wrong):
        yield place, f"{values[place].as_py()!r} {problem}"


def _places(wrong: pa.ChunkedArray) -> list[int]:
    found: list[int] = pc.indices_nonzero(wrong.fill_null(False)).to_pylist()
    return found
