"""How often each key may be used, counted together by all processes of a node.

The generic cell rate algorithm (ITU-T I.371): for each key the time at which its last request would
have come at the steady rate. It is one number, in memory that the processes share, and monotonic:
a clock that jumps changes nothing. A time that is past says nothing any more, so that the cell of
such a key is as good as a new one.
"""

import mmap
import os
import struct
import time
from pathlib import Path

from konveyer.core.errors import Conflict
from konveyer.core.files import locked

_CELL = struct.Struct("=8sq")  # the first bytes of the key's digest, its time in nanoseconds
_TIME, _MARK_BYTES = struct.Struct("=q"), 8
_CELLS = 16_384
_BYTES = _CELLS * _CELL.size
_NOBODY = bytes(8)
_S = 1_000_000_000


class TooManyKeys(Conflict):
    """More keys with a rate than a node counts are in use at one moment."""

    code = "too_many_keys"


class SharedRates:
    """Cells in the file `path`; processes that open the same one share them.

    Where no cell is new, that of a key that was not used lately is given to another one.

    Nothing is locked on the way of a request, unless its key lost its cell. Two processes that
    decide within the same microsecond may both let a request pass.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock")
        with path.open("a+b") as file, locked(self._lock):
            if file.seek(0, os.SEEK_END) < _BYTES:
                _reserve(file.fileno())
            self._memory = mmap.mmap(file.fileno(), 0)

    def limit(self, digest: str, rate_per_s: float) -> "Limit":
        """The limit of a key, which starts full when it was not used lately."""
        return Limit(self, bytes.fromhex(digest)[:8], rate_per_s)

    def cell(self, place: int) -> tuple[bytes, int]:
        """Whose cell it is, and its time."""
        mark, due_ns = _CELL.unpack_from(self._memory, place)
        return mark, due_ns

    def count(self, place: int, due_ns: int) -> None:
        _TIME.pack_into(self._memory, place + _MARK_BYTES, due_ns)

    def claim(self, mark: bytes) -> int:
        """The place of the one cell of a key."""
        with locked(self._lock):
            place, is_its_own = self._place_for(mark)
            if not is_its_own:
                _CELL.pack_into(self._memory, place, mark, 0)
            return place

    def _place_for(self, mark: bytes) -> tuple[int, bool]:
        """Where the key's cell is, or can be. No cell gets empty again, so that an empty one tells
        that the key has none further on.
        """
        now_ns, past = time.monotonic_ns(), -1
        for step in range(_CELLS):
            place = (int.from_bytes(mark) + step) % _CELLS * _CELL.size
            found, due_ns = self.cell(place)
            if found in (_NOBODY, mark):
                return place, found == mark
            if past < 0 and due_ns <= now_ns:
                past = place
        if past >= 0:
            return past, False
        raise TooManyKeys(
            f"A node counts {_CELLS:,} keys with a rate at once.",
            hint="revoke keys, or leave out rates",
        )


def _reserve(descriptor: int) -> None:
    """A full disk is an error now; later it would kill who first writes to a cell."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _BYTES)
    else:
        os.truncate(descriptor, _BYTES)


class Limit:
    """The rate of one key: `rate_per_s` on average, and as many as that at once after a pause."""

    def __init__(self, rates: SharedRates, mark: bytes, rate_per_s: float) -> None:
        self._rates, self._mark, self._place = rates, mark, rates.claim(mark)
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
        mark, due_ns = self._rates.cell(self._place)
        if mark != self._mark:  # its cell was given away while nobody used the key
            self._place = self._rates.claim(self._mark)
            _, due_ns = self._rates.cell(self._place)
        now_ns = time.monotonic_ns()
        due_ns = max(due_ns, now_ns)
        ahead_ns: int = due_ns - now_ns - self._most_ahead_ns
        if ahead_ns > 0:
            return ahead_ns
        self._rates.count(self._place, due_ns + self._interval_ns)
        return 0
