"""When two samples differ by more than chance: shares, and distributions of answers.

Both questions are asked the same way. Not "is there any difference", which is true of every two
models once enough rows were seen, but "is the difference surely larger than what is allowed".
A sample that is too small to say so never condemns anybody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# One false alarm in a thousand looks.
SURE = 0.001


def share_surely_above(bad: int, total: int) -> float:
    """A share that the true one exceeds with certainty 1 - `SURE`; 0.0 of nothing.

    The smallest share under which `bad` of `total` is not less likely than `SURE` by Chernoff's
    bound, which holds for every sample size.

    >>> share_surely_above(0, 100), round(share_surely_above(3, 3), 2)
    (0.0, 0.1)
    """
    if not bad:
        return 0.0
    seen, low, high = bad / total, 0.0, bad / total
    for _ in range(50):
        middle = (low + high) / 2
        if total * _divergence(seen, middle) > math.log(1 / SURE):
            low = middle
        else:
            high = middle
    return low


def _divergence(seen: float, true: float) -> float:
    """Kullback's and Leibler's, between two shares."""
    some = seen * math.log(seen / true) if true else math.inf
    rest = (1 - seen) * math.log((1 - seen) / (1 - true)) if seen < 1 else 0.0
    return some + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How far apart two distributions are: 0 is the same, 1 is apart.

    `seen` is Kolmogorov's and Smirnov's statistic, the largest difference of the two cumulative
    distributions: 0.1 means that a threshold can be chosen which a tenth more of one sample passes.
    `surely` is what it surely is in all that the samples were drawn from.
    """

    seen: float
    surely: float


def shift(one: Sequence[Any], other: Sequence[Any]) -> Shift:
    """Between two samples of one output; texts are ordered by the alphabet, nulls come first.

    `surely` takes from `seen` how far each sample may be from its source: by the inequality of
    Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990), which holds for every sample
    size and distribution, `sqrt(ln(4 / SURE) / (2 n))` for a sample of n.

    >>> shift([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    Shift(seen=0.0, surely=0.0)
    >>> round(shift([0.0] * 400, [1.0] * 400).surely, 2)
    0.8
    """
    if not one or not other:
        return Shift(seen=0.0, surely=0.0)
    ranks = _ranks(one, other)
    first, second = np.sort(ranks[: len(one)]), np.sort(ranks[len(one) :])
    at = np.unique(ranks)
    below = np.searchsorted(first, at, "right") / len(first)
    also = np.searchsorted(second, at, "right") / len(second)
    seen = float(np.abs(below - also).max())
    margin = sum(math.sqrt(math.log(4 / SURE) / (2 * len(part))) for part in (one, other))
    return Shift(seen=seen, surely=max(0.0, seen - margin))


def _ranks(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """Both samples as numbers that keep their order."""
    both = [*one, *other]
    if all(isinstance(value, int | float) for value in both):
        values = np.array(both, np.float64)
        return np.where(np.isnan(values), -np.inf, values)
    texts = sorted({str(value) for value in both if value is not None})
    place = {text: number for number, text in enumerate(texts, 1)}
    return np.array([0 if value is None else place[str(value)] for value in both], np.float64)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of the values do not exceed; None of nothing.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
