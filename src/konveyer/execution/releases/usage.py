"""What the processes of a node use while a block runs: processor and memory."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LOOK_EVERY_S = 0.25


@dataclass
class Usage:
    """Of a process and all below it. `cores` is processor time over time, `rss_mb` the most held.

    Both are None until the block has ended, and where the process cannot be looked at from here.
    """

    cores: float | None = None
    rss_mb: float | None = None
    processes: int = 0


@contextmanager
def measured(pid: int | None) -> Iterator[Usage]:
    """Look at the process several times a second; None stands for one of another machine."""
    usage, ended = Usage(), threading.Event()
    if pid is None:
        yield usage
        return
    watcher = threading.Thread(target=_watch, args=(pid, usage, ended), name="usage")
    watcher.start()
    try:
        yield usage
    finally:
        ended.set()
        watcher.join()


def _watch(pid: int, usage: Usage, ended: threading.Event) -> None:
    import psutil

    spent_s: dict[int, tuple[float, float]] = {}
    most_held, is_last, began = 0, False, time.monotonic()
    while not is_last:
        is_last = ended.wait(_LOOK_EVERY_S if spent_s else 0)
        held = 0
        try:
            root = psutil.Process(pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            break
        for process in family:
            try:
                times, rss = process.cpu_times(), process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
            total = times.user + times.system
            first, _ = spent_s.get(process.pid, (total, total))
            spent_s[process.pid] = (first, total)
            held += rss
        most_held = max(most_held, held)
    if spent_s:
        spent = sum(last - first for first, last in spent_s.values())
        usage.cores = spent / (time.monotonic() - began)
        usage.rss_mb, usage.processes = most_held / 1e6, len(spent_s)
