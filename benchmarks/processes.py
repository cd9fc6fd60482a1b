"""What processes cost, read from /proc. Peers use it too, so it needs no library."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


def started_by(pid: int) -> list[int]:
    """All processes that `pid` started, and those that these did, as far as they are there."""
    found, parents = [], [pid]
    while parents:
        for tasks in Path(f"/proc/{parents.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = [int(child) for child in tasks.read_text().split()]
                found += children
                parents += children
    return found


def cpu_s_of(pids: Iterable[int]) -> float:
    """CPU time of the processes, and of their own ended children that they waited for."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # The fields after the process's name, which may have blanks.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_kb_of(pids: Iterable[int]) -> int:
    """The peaks of all processes, added up."""
    return sum(_kb(pid, "status", "VmHWM") for pid in pids)


def shared_kb_of(pids: Iterable[int]) -> int:
    """The memory of all processes now; a page that several share counts once."""
    return sum(_kb(pid, "smaps_rollup", "Pss") for pid in pids)


def _kb(pid: int, file: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
