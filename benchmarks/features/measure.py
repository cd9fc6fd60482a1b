"""One operation, timed in a process of its own. Peers use it too, so it needs no library.

A process gets its task as JSON in its one argument, gets ready (connections, imports and those
that a library makes at first use), does the operation once and prints what it measured as JSON.
Peak memory is read right after the operation and includes the interpreter and the libraries, as a
user of that side would pay for them.
"""

import contextlib
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import cpu_s_of, peak_kb_of, started_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`data` holds the Parquet files; `state` is this side's own folder, kept between benches.

    The operation, or `Prepared.finish` when `check` asks for it, writes what it found to `answer`.
    """

    bench: str
    data: Path
    state: Path
    answer: Path
    check: bool


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An operation that is ready to be timed. It makes `calls` calls, and one call is reported."""

    operation: Callable[[], object]
    finish: Callable[[], None] = _nothing
    calls: int = 1


Bench = Callable[[Task], Prepared]


def task_as_json(task: Task) -> str:
    paths = {"data": str(task.data), "state": str(task.state), "answer": str(task.answer)}
    return json.dumps({"bench": task.bench, "check": task.check, **paths})


def task_from_json(text: str) -> Task:
    plain = json.loads(text)
    paths = {name: Path(plain[name]) for name in ("data", "state", "answer")}
    return Task(bench=plain["bench"], check=plain["check"], **paths)


def run_task(benches: Mapping[str, Bench]) -> None:
    """Do the task in the command line; libraries' own chatter goes to stderr."""
    task = task_from_json(sys.argv[1])
    task.state.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):
        prepared = benches[task.bench](task)
        gc.collect()  # what imports left behind is not collected at somebody's expense
        cpu_s, start_s = _cpu_s(), time.perf_counter()
        prepared.operation()
        wall_s = time.perf_counter() - start_s
        cpu_s = _cpu_s() - cpu_s
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + peak_kb_of(
            started_by(os.getpid())
        )
        if task.check:
            prepared.finish()
    measured = {
        "seconds": wall_s / prepared.calls,
        "cpu_seconds": cpu_s / prepared.calls,
        "peak_rss_mb": peak_kb / 1024,
    }
    print(json.dumps(measured))


def _cpu_s() -> float:
    """Of this process and of those that it started: Spark works in others."""
    return time.process_time() + cpu_s_of(started_by(os.getpid()))
