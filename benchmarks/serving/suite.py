"""One run of the serving benches: each side started, asked, compared, loaded and stopped."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.serving.lines import Seen, cost_line, rate_line, typical
from benchmarks.serving.load import load
from benchmarks.serving.many import packed, serve
from benchmarks.serving.peers import ROOT, SERVED_PEERS, Peer, Row, write_bodies
from benchmarks.serving.server import Server, ServerFailed, free_port, is_answered, post, running
from benchmarks.serving.shop import APPLICATION, FACTS
from konveyer.bundle.manifest import NATIVE

OURS = "ours"
CONNECTIONS = {"predict-c1": 1, "predict-c16": 16}
NAMES = (*CONNECTIONS, "models-60", "isolated-20", "cold-start", "release")
MODELS, ISOLATED, GATES_BUDGET_S = 60, 20, 60.0
COMPARED = 200
# LightGBM and scikit-learn may add the same numbers in another order.
TOLERANCE = 1e-9
WARM_S = 1.0
JSON = {"content-type": "application/json"}
Line = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    folder: Path
    only: frozenset[str]
    peers: frozenset[str]
    rounds: int
    seconds: float


@dataclass
class Suite:
    """The benches that the options ask for, in one folder."""

    options: Options
    started_s: float = field(default_factory=time.monotonic)

    def lines(self) -> Iterator[Line]:
        """The lines of each bench when it is done."""
        self._prepare()
        only = self.options.only
        if only & CONNECTIONS.keys():
            yield from self._against_peers()
        if "models-60" in only:
            yield from self._many_models()
        if "isolated-20" in only:
            yield from self._isolated()
        if "cold-start" in only:
            yield from self._cold_start()
        if "release" in only:
            worked = self._facts["gates_s"]
            yield cost_line(
                "release", "s", sum(worked.values()), "budget", GATES_BUDGET_S, stages_s=worked
            )

    @property
    def _peers(self) -> list[Peer]:
        return [peer for peer in SERVED_PEERS if peer.name in self.options.peers]

    @property
    def _root(self) -> Path:
        return self.options.folder / OURS

    @property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self._root / FACTS).read_text())
        return facts

    @property
    def _key(self) -> dict[str, str]:
        return {**JSON, "x-api-key": self._facts["key"]}

    def _prepare(self) -> None:
        """Make the data, our workspace and what peers need, unless they are there already."""
        folder = self.options.folder
        if not (self._root / FACTS).exists():
            self._say("making data, training the model, taking it through the gates")
            _python("serving.data", str(folder / "data"))
            _python("serving.shop", str(folder / "data"), str(self._root))
        for peer in self._peers:
            own = folder / peer.name
            if not (own / "bodies.jsonl").exists():
                self._say(f"preparing {peer.name}")
                peer.make_ready(self._model, own)
                write_bodies(own / "bodies.jsonl", self._rows(), peer.body)
        write_bodies(self._bodies, self._rows(), _by_key)

    def _rows(self) -> list[Row]:
        """Clients with all their features, in the order in which they are asked for."""
        rows: list[Row] = pq.read_table(self.options.folder / "data/asked.parquet").to_pylist()
        return rows

    @property
    def _bodies(self) -> Path:
        return self.options.folder / "bodies.jsonl"

    @property
    def _model(self) -> Path:
        """The pipeline as training kept it."""
        (kept,) = (self._root / "state/runs").glob(f"*/{NATIVE}/model.pkl")
        return kept

    def _against_peers(self) -> list[Line]:
        runs: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        for number in range(self.options.rounds):
            for side in (OURS, *(peer.name for peer in self._peers)):
                for bench, seen in self._round(side, compare=number == 0).items():
                    runs[bench, side].append(seen)
        return [
            rate_line(bench, typical(runs[bench, OURS]), peer.name, typical(runs[bench, peer.name]))
            for bench in CONNECTIONS
            for peer in self._peers
            if bench in self.options.only
        ]

    def _round(self, side: str, *, compare: bool) -> dict[str, Seen]:
        """One start of one side: answers compared with what the model says, then each load."""
        peer = next((peer for peer in self._peers if peer.name == side), None)
        if peer is None:
            with self._our_node({APPLICATION: self._facts["digest"]}) as server:
                url = _predict_url(server, APPLICATION)
                if compare:
                    self._compare(url, self._key, _by_key, lambda answer: answer["prediction"])
                return self._loads(side, server, url, self._bodies, self._key)
        with self._peer_server(peer) as server:
            url = server.url + peer.path
            if compare:
                self._compare(url, JSON, peer.body, peer.score)
            return self._loads(side, server, url, self._folder(peer) / "bodies.jsonl", JSON)

    def _loads(
        self, side: str, server: Server, url: str, bodies: Path, headers: Mapping[str, str]
    ) -> dict[str, Seen]:
        load(url, bodies, headers, connections=16, seconds=WARM_S)
        found = {}
        for bench, connections in CONNECTIONS.items():
            if bench in self.options.only:
                found[bench] = self._seen(server, url, bodies, headers, connections)
                self._tell(bench, side, found[bench])
        return found

    def _seen(
        self,
        server: Server,
        url: str,
        bodies: Path,
        headers: Mapping[str, str],
        connections: int,
        paths: Sequence[str] = (),
    ) -> Seen:
        cpu_s, seconds = server.cpu_s(), self.options.seconds
        under = load(url, bodies, headers, connections=connections, seconds=seconds, paths=paths)
        return Seen(
            rate_per_s=under.rate_per_s,
            p50_ms=under.p50_ms,
            p99_ms=under.p99_ms,
            cpu_ms=(server.cpu_s() - cpu_s) / under.requests * 1e3,
            memory_mb=server.memory_mb(),
        )

    def _compare(
        self,
        url: str,
        headers: Mapping[str, str],
        body: Callable[[Row], Any],
        score: Callable[[Any], float],
    ) -> None:
        """Raise unless the server says of each client what the other servers said before."""
        rows = self._rows()[:COMPARED]
        scores = [
            score(json.loads(post(url, json.dumps(body(row)).encode(), headers))) for row in rows
        ]
        known = self.options.folder / "scores.json"
        if not known.exists():
            known.write_text(json.dumps(scores))
        worst = max(
            abs(one - other)
            for one, other in zip(scores, json.loads(known.read_text()), strict=True)
        )
        if worst > TOLERANCE:
            raise ServerFailed(f"{url} answers otherwise than the others: by {worst:.3g}")
        self._say(f"{len(rows)} answers are equal (worst difference {worst:.1g})")

    def _many_models(self) -> list[Line]:
        """The same node process with one model and with sixty, all of them asked in turn."""
        names = [f"model-{number}" for number in range(MODELS)]
        digests = packed(self._root, names)
        runs: dict[int, list[Seen]] = defaultdict(list)
        started = []
        for _ in range(self.options.rounds):
            for count in (1, MODELS):
                served = names[:count]
                bundles = {name: digests[name] for name in served}
                with self._our_node(bundles, "--processes", "1", ready_for=served[-1]) as server:
                    url, paths = server.url, [_predict_path(name) for name in served]
                    for path in paths:
                        self._wait_for_answer(url + path)
                    asked = (url, self._bodies, self._key)
                    load(*asked, connections=16, seconds=WARM_S, paths=paths)
                    seen = self._seen(server, *asked, 16, paths)
                    runs[count].append(seen)
                    self._tell("models-60", f"{OURS} with {count}", seen)
                    if count == MODELS:
                        started.append(server.started_s)
        line = rate_line("models-60", typical(runs[MODELS]), "ours-1", typical(runs[1]))
        return [{**line, "started_s": round(max(started), 2)}]

    def _isolated(self) -> list[Line]:
        """Twenty models in processes of their own, all asked; a peer needs a server for each."""
        names = [f"isolated-{number}" for number in range(ISOLATED)]
        digests = packed(self._root, names, native=self._model.parent)
        with self._our_node(digests, ready_for=names[-1]) as server:
            for name in names:
                self._wait_for_answer(_predict_url(server, name))
            url = _predict_url(server, names[0])
            seen = self._seen(server, url, self._bodies, self._key, 16)
            self._tell("isolated-20", OURS, seen)
        lines = []
        for peer in self._peers:
            with self._peer_server(peer) as server:
                self._ask_peer(peer, server)
                memory_mb = server.memory_mb() * ISOLATED
            lines.append(
                cost_line(
                    "isolated-20",
                    "MB",
                    seen.memory_mb,
                    peer.name,
                    memory_mb,
                    memory_mb=(seen.memory_mb, memory_mb),
                    ours_rate_per_s=round(seen.rate_per_s),
                )
            )
        return lines

    def _cold_start(self) -> list[Line]:
        """From a bundle in the store to its first answer; peers from the start of their server."""
        first, second = packed(self._root, ["first", "second"]).items()
        with self._our_node(dict([first]), ready_for="first") as server:
            began = time.monotonic()
            serve(self._root, dict([first, second]))
            self._wait_for_answer(_predict_url(server, "second"))
            took_s, node_s = time.monotonic() - began, server.started_s
            ours_mb = server.memory_mb()
        lines = []
        for peer in self._peers:
            with self._peer_server(peer) as server:
                self._ask_peer(peer, server)
                lines.append(
                    cost_line(
                        "cold-start",
                        "s",
                        took_s,
                        peer.name,
                        server.started_s,
                        memory_mb=(ours_mb, server.memory_mb()),
                        ours_node_started_s=round(node_s, 2),
                    )
                )
        return lines

    def _wait_for_answer(self, url: str) -> None:
        body, deadline = json.dumps(_by_key(self._rows()[0])).encode(), time.monotonic() + 60
        while not is_answered(url, body, self._key):
            if time.monotonic() > deadline:
                raise ServerFailed(f"{url} gave no answer within a minute")
            time.sleep(0.01)

    def _ask_peer(self, peer: Peer, server: Server) -> None:
        post(server.url + peer.path, json.dumps(peer.body(self._rows()[0])).encode(), JSON)

    @contextmanager
    def _our_node(
        self, digests: Mapping[str, str], *options: str, ready_for: str = APPLICATION
    ) -> Iterator[Server]:
        """A node of these bundles as `konveyer serve` starts it, once `ready_for` is served."""
        serve(self._root, digests)
        port = free_port()
        workspace = (*(sys.executable, "-m", "konveyer", "--workspace", str(self._root)),)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KONVEYER_")}
        with running(
            [*workspace, "serve", "prod", "--port", str(port), *options],
            port=port,
            ready_path=f"/{ready_for}/v1",
            headers=self._key,
            folder=self.options.folder,
            environment=environment,
        ) as server:
            yield server

    @contextmanager
    def _peer_server(self, peer: Peer) -> Iterator[Server]:
        port, folder = free_port(), self._folder(peer)
        with running(
            peer.start_command(folder, port),
            port=port,
            ready_path=peer.ready_path,
            headers={},
            folder=folder,
            environment=peer.environment(self._model, folder),
        ) as server:
            yield server

    def _folder(self, peer: Peer) -> Path:
        return self.options.folder / peer.name

    def _tell(self, bench: str, side: str, seen: Seen) -> None:
        self._say(
            f"{bench}: {side} {seen.rate_per_s:.0f} requests/s, p50 {seen.p50_ms:.3g} ms, "
            f"p99 {seen.p99_ms:.3g} ms, {seen.cpu_ms:.3g} ms of CPU each, {seen.memory_mb:.0f} MB"
        )

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started_s:4.0f} s] {text}", file=sys.stderr, flush=True)


def _by_key(row: Row) -> Row:
    return {"client_id": row["client_id"]}


def _predict_url(server: Server, application: str) -> str:
    return server.url + _predict_path(application)


def _predict_path(application: str) -> str:
    return f"/{application}/v1/predict"


def _python(module: str, *arguments: str) -> None:
    command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(f"benchmarks.{module} failed:\n{done.stdout}{done.stderr.strip()}")
