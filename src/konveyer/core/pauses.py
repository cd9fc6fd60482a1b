"""Pauses between tries of what goes on failing."""

_MOST_DOUBLINGS = 32


def doubled(first_s: float, failures: int, longest_s: float) -> float:
    """Seconds to wait after so many failures in a row: `first_s` after the first, then twice that.

    >>> [doubled(0.1, failures, 10.0) for failures in (1, 2, 3, 5_000)]
    [0.1, 0.2, 0.4, 10.0]
    """
    # Of thousands of failures the power itself would be too large for a number.
    return min(first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), longest_s)
