"""Spine: the moments of entities at which features are wanted."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from konveyer.feature_store.kernel.codes import LARGEST, Ints, distinct


@dataclass(frozen=True, slots=True, kw_only=True)
class Spine:
    """Rows sorted by entity and time; `entities` are the join keys of each code, rising.

    Sorted rows search neighbouring rows of a history, which is several times faster.
    """

    entities: pa.Table
    codes: Ints
    at_us: Ints


def spine_of(keys: pa.Table, at_us: Ints) -> tuple[Spine, Ints]:
    """A spine of rows that come in any order, and which of them each of its rows is."""
    entities, codes = distinct(keys)
    order = spine_order(codes, at_us)
    return Spine(entities=entities, codes=codes[order], at_us=at_us[order]), order


def spine_order(codes: Ints, at_us: Ints) -> Ints:
    """The order of rows by code and time."""
    if not len(codes):
        return np.zeros(0, np.int64)
    first_us = int(at_us.min())
    span_us = int(at_us.max()) - first_us + 1
    if span_us * (int(codes.max()) + 1) < LARGEST:
        return np.argsort(codes * span_us + (at_us - first_us))
    return np.lexsort((at_us, codes))
