"""Facts about processes of this machine."""

import os
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists.

    >>> is_alive(os.getpid())
    True
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def mark_of(pid: int) -> str | None:
    """What tells a process from all others that had its id before, or will; None where there is no
    such process, or no Linux to say.

    >>> mark_of(os.getpid()) == mark_of(os.getpid())
    True
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = facts[0], facts[19]
    return None if state in "ZX" else f"{boot}-{started}"
