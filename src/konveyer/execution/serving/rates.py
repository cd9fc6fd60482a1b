"""How often each key may be used, counted together by all processes of a node.

The generic cell rate algorithm (ITU-T I.371): for each key the time at which its last request would
have come at the steady rate. It is one number, in memory that the processes share, and monotonic:
a clock that jumps changes nothing.
"""

import mmap
import struct
import time
from pathlib import Path

from konveyer.core.errors import Conflict
from konveyer.core.files import locked

_CELL = struct.Struct("=8sq")  # the first bytes of the key's digest, its time in nanoseconds
_CELLS = 16_384
_NOBODY = bytes(8)
_S = 1_000_000_000


class TooManyKeys(Conflict):
    """More keys with a rate than a node counts."""

    code = "too_many_keys"


class SharedRates:
    """Cells in the file `path`; processes that open the same one share them.

    Nothing is locked on the way of a request. Two processes that decide within the same
    microsecond may both let a request pass.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock")
        with path.open("a+b") as file:
            file.truncate(_CELLS * _CELL.size)
            self._memory = mmap.mmap(file.fileno(), 0)

    def limit(self, digest: str, rate_per_s: float) -> "Limit":
        """The limit of a key, which starts afresh with a new node only."""
        mark = bytes.fromhex(digest)[:8]
        with locked(self._lock):
            for step in range(_CELLS):
                place = (int.from_bytes(mark) + step) % _CELLS * _CELL.size
                found, _ = _CELL.unpack_from(self._memory, place)
                if found == _NOBODY:
                    _CELL.pack_into(self._memory, place, mark, 0)
                if found in (_NOBODY, mark):
                    return Limit(self._memory, place + 8, rate_per_s)
        raise TooManyKeys(
            f"A node counts {_CELLS:,} keys with a rate.", hint="revoke keys, or leave out rates"
        )


_TIME = struct.Struct("=q")


class Limit:
    """The rate of one key: `rate_per_s` on average, and as many as that at once after a pause."""

    def __init__(self, memory: mmap.mmap, place: int, rate_per_s: float) -> None:
        self._memory, self._place = memory, place
        self._interval_ns = int(_S / rate_per_s)
        self._most_ahead_ns = max(0, _S - self._interval_ns)

    def wait_ns(self) -> int:
        """0 when a request may pass now, which is then counted; otherwise how long it has to wait.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     limit = SharedRates(Path(folder) / "rates").limit("ab" * 32, rate_per_s=2)
        ...     [limit.wait_ns() > 0 for _ in range(3)]
        [False, False, True]
        """
        now_ns = time.monotonic_ns()
        (due_ns,) = _TIME.unpack_from(self._memory, self._place)
        due_ns = max(due_ns, now_ns)
        ahead_ns: int = due_ns - now_ns - self._most_ahead_ns
        if ahead_ns > 0:
            return ahead_ns
        _TIME.pack_into(self._memory, self._place, due_ns + self._interval_ns)
        return 0
