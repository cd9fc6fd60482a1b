"""One run of the benches: data, workspaces, measured processes, comparison, lines."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.environment import module_of, python_of
from benchmarks.features.benches import (
    AGAINST_PEERS,
    DENSE,
    DUCKDB,
    GROWTH,
    LENGTHS,
    POINT_IN_TIME,
    SPARSE,
    Bench,
    Peer,
)
from benchmarks.features.lines import Measured, growth_lines, peer_line, typical
from benchmarks.features.measure import Task, task_as_json

ROOT = Path(__file__).parents[2]
OURS = "ours"
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`here` runs peers in our own environment, which has DuckDB and Polars but not Feast."""

    folder: Path
    only: frozenset[str]
    peers: frozenset[str]
    rounds: int
    quick: bool
    here: bool


@dataclass
class Suite:
    """The benches that the options ask for, in one folder."""

    options: Options
    results: dict[Bench, Measured] = field(default_factory=dict)
    started_s: float = field(default_factory=time.monotonic)

    def lines(self) -> Iterator[Line]:
        """The lines of each bench when it is done."""
        for bench in AGAINST_PEERS:
            if bench.name in self.options.only:
                yield from self._against_peers(bench)
        if {DENSE, SPARSE} <= self.results.keys():
            dense, sparse = self.results[DENSE], self.results[SPARSE]
            yield peer_line(DENSE.name, DENSE.unit, dense, "ours-sparse", sparse)
        if GROWTH in self.options.only:
            yield from self._growth()

    def _against_peers(self, bench: Bench) -> list[Line]:
        peers = [peer for peer in bench.peers if peer.name in self.options.peers]
        self._prepare(bench)
        if bench.after and bench.after not in self.results:
            self._round(bench.after, peers, 0)
        runs, lost = defaultdict(list), {}
        for number in range(self.options.rounds):
            measured = self._round(bench, peers, number)
            if number == 0:
                # Nothing is told of times before the answers are known to be the same.
                lost = {peer.name: self._compare(bench, peer) for peer in peers}
            for side, run in measured.items():
                runs[side].append(run)
                self._tell(bench, side, run)
        typically = {side: typical(found) for side, found in runs.items()}
        self.results[bench] = ours = typically[OURS]
        return [
            peer_line(
                bench.name,
                bench.unit,
                ours,
                peer.name,
                typically[peer.name],
                **({"peer_rows_lost": lost[peer.name]} if peer.may_lose_rows else {}),
            )
            for peer in peers
        ]

    def _round(self, bench: Bench, peers: Sequence[Peer], number: int) -> dict[str, Measured]:
        """Each side once, in turns, so that a busy machine slows all of them alike."""
        sides = [OURS, *(peer.name for peer in peers if number < peer.rounds)]
        self._say(f"{bench.name}, round {number + 1}: {', '.join(sides)}")
        return {side: self._measure(bench, side, check=number == 0) for side in sides}

    def _growth(self) -> list[Line]:
        runs = defaultdict(list)
        for bench in LENGTHS.values():
            self._prepare(bench)
        for _ in range(self.options.rounds):
            for times, bench in LENGTHS.items():
                measured = self._measure(bench, OURS, check=False)
                runs[times].append(measured)
                self._tell(bench, OURS, measured)
        return growth_lines({times: typical(found) for times, found in runs.items()})

    def _prepare(self, bench: Bench) -> None:
        """Make the data and our workspace, unless they are there already."""
        folder = self._folder(bench)
        ready = folder / "ready"
        if ready.exists():
            return
        (folder / "answers").mkdir(parents=True, exist_ok=True)
        data, ours = str(folder / "data"), str(folder / OURS)
        self._say(f"making the data of {bench.dataset}, and computing our features (not measured)")
        small = ["--quick"] if self.options.quick else []
        _python("features.data", [bench.dataset, data, *small])
        unpublished = ["--unpublished"] if bench.dataset == "online" else []
        _python("features.setup", [bench.definitions, data, ours, *unpublished])
        ready.touch()

    def _measure(self, bench: Bench, side: str, *, check: bool) -> Measured:
        """The bench in a process of that side's own."""
        folder = self._folder(bench)
        task = Task(
            bench=bench.name,
            data=folder / "data",
            state=folder / side,
            answer=self._answer(bench, side),
            check=check,
        )
        if side == DUCKDB:
            task = replace(task, bench=POINT_IN_TIME.name, state=folder / OURS)
        argument = [task_as_json(task)]
        if side in (OURS, DUCKDB):
            return Measured(**json.loads(_python("features.ours", argument)))
        python = Path(sys.executable) if self.options.here else python_of(side)
        return Measured(**json.loads(_python(f"peers.{module_of(side)}.run", argument, python)))

    def _compare(self, bench: Bench, peer: Peer) -> int:
        """How many of our rows the peer lost; every other cell is equal, or this is the end."""
        answers = [str(self._answer(bench, side)) for side in (OURS, peer.name)]
        lose = ["--may-lose-rows"] if peer.may_lose_rows else []
        try:
            lost: int = json.loads(_python("features.compare", [*answers, *lose]))["rows_lost"]
        except ProcessFailed as failed:
            raise ProcessFailed(f"{bench.name}: ours and {peer.name} differ\n{failed}") from failed
        told = f", but for {lost:,} rows that it lost" if lost else ""
        self._say(f"{bench.name}: every cell of {peer.name} equals ours{told}")
        return lost

    def _folder(self, bench: Bench) -> Path:
        return self.options.folder / bench.dataset

    def _answer(self, bench: Bench, side: str) -> Path:
        return self._folder(bench) / "answers" / f"{bench.name}-{side}.parquet"

    def _tell(self, bench: Bench, side: str, run: Measured) -> None:
        took = f"{run.seconds:.4g} s ({run.cpu_seconds:.4g} s of CPU), {run.peak_rss_mb:.0f} MB"
        self._say(f"{bench.name}: {side} {took}")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started_s:4.0f} s] {text}", file=sys.stderr, flush=True)


class ProcessFailed(Exception):
    """A process of the suite ended with an error; says what it wrote."""


def _python(module: str, arguments: Sequence[str], python: Path | None = None) -> str:
    command = [str(python or sys.executable), "-W", "ignore", "-m", f"benchmarks.{module}"]
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ProcessFailed(f"benchmarks.{module} failed:\n{done.stderr.strip()}")
    return done.stdout
