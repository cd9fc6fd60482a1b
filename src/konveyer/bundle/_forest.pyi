from typing import Any

import numpy.typing as npt

def score(
    nodes: npt.NDArray[Any],
    roots: npt.NDArray[Any],
    sets: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    outputs: npt.NDArray[Any],
    width: int,
    classes: int,
    how: int,
    factor: float,
    divisor: float,
    almost_zero: float,
    adds_float32: bool,
    /,
) -> None: ...
