"""What a model is given: one rule for training, for recorded cases and for the isolated lane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from konveyer.bundle.native.preparation import Preparation

CODES, FRAME = "codes", "frame"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """How rows of feature values become the input of a model.

    `codes` is a float64 matrix in which a text is its place in the `categories` of its feature.
    `frame` is a pandas DataFrame with a column for each of `names`: `texts` as objects, all others
    as float64; a null is NaN in both.
    """

    form: str
    names: tuple[str, ...]
    texts: frozenset[str]
    categories: Mapping[str, Sequence[str]]

    @property
    def categorical(self) -> list[int]:
        return [place for place, name in enumerate(self.names) if name in self.texts]

    def of_rows(self, rows: Sequence[Sequence[Any]]) -> Any:
        if self.form == CODES:
            return Preparation(self.names, self.categories).matrix(rows)
        columns = zip(*rows, strict=True) if rows else [()] * len(self.names)
        return self.frame(dict(zip(self.names, columns, strict=True)))

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """The DataFrame of `columns`; a number that is an array already is taken as it is."""
        import pandas as pd

        nan = float("nan")
        return pd.DataFrame(
            {
                name: pd.Series([nan if text is None else text for text in values], dtype=object)
                if name in self.texts
                else np.array(values, np.float64)
                for name, values in columns.items()
            }
        )


def plain(value: Any) -> Any:
    """A feature value as JSON: instants as microseconds, as a serving node reads them, and
    decimals as what the model is given.
    """
    if isinstance(value, Decimal):
        return float(value)
    return int(value.timestamp() * 1_000_000) if hasattr(value, "timestamp") else value
