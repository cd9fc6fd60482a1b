"""From feature values to the numbers that a model reads: one rule in training and in serving.

Needs NumPy alone: the same file also runs in the environment that a model is trained in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


class Preparation:
    """Turns rows of values into a float64 matrix with a column for each of `names`, in order.

    A decimal becomes the nearest float64. Text becomes its place in the column's `categories`
    (learned in training); a text that is not there, and every null, becomes NaN. Instants are
    microseconds; a boolean is 0 or 1.

    >>> p = Preparation(["age", "city"], {"city": ["Oslo", "Rome"]})
    >>> p.matrix([[30, "Rome"], [None, "Paris"]]).tolist()
    [[30.0, 1.0], [nan, nan]]
    """

    def __init__(self, names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> None:
        self.names = tuple(names)
        self._codes: list[dict[Any, float] | None] = [
            {text: float(code) for code, text in enumerate(categories[name])}
            if name in categories
            else None
            for name in names
        ]
        self._nan = float("nan")

    @property
    def categorical(self) -> list[int]:
        """The places of the columns that hold category codes."""
        return [place for place, codes in enumerate(self._codes) if codes is not None]

    def codes(self, name: str, texts: Sequence[Any]) -> npt.NDArray[np.float64]:
        """The codes of `texts` in the text column `name`, for a column that is encoded already."""
        codes = self._codes[self.names.index(name)] or {}
        return np.array([codes.get(text, self._nan) for text in texts], dtype=np.float64)

    def matrix(self, rows: Sequence[Sequence[Any]]) -> Matrix:
        nan = self._nan
        filled = [
            [
                (nan if value is None else value) if codes is None else codes.get(value, nan)
                for value, codes in zip(row, self._codes, strict=True)
            ]
            for row in rows
        ]
        return np.array(filled, dtype=np.float64).reshape(len(rows), len(self.names))
