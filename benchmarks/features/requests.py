"""Which clients the online benches ask for. The standard library alone: peers use it too."""

from collections.abc import Sequence

KEY = "client_id"
MOST_CLIENTS, MOST_CALLS = 50_000, 20_000


def requests_of(bench: str, clients: Sequence[int]) -> list[list[int]]:
    """The clients of each call: `online-N` asks for N clients at once.

    >>> requests_of("online-2", [7, 5, 3, 1])
    [[7, 5], [3, 1]]
    """
    size = int(bench.removeprefix("online-"))
    asked = clients[:MOST_CLIENTS]
    calls = [list(asked[start : start + size]) for start in range(0, len(asked), size)]
    return calls[:MOST_CALLS]
