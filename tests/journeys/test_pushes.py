"""Rows pushed by real processes, killed with -9 between any two steps: exactly once, everywhere."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from konveyer import FeatureStore
from konveyer.access.profiles import saved_token
from konveyer.core.clock import from_us, now_us
from konveyer.core.settings import load_settings
from konveyer.feature_store.sources.pushes import PushRow
from konveyer.wiring import open_workspace
from tests.support import Shop, quick_of, wait_for

DEFINITIONS = """
from konveyer import (
    Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, PushedColumn, Source
)

client = Entity(name="client", join_keys=(JoinKey("client", "int64"),))
payments = Source(
    name="payments",
    pushed=(
        PushedColumn("client", "int64"),
        PushedColumn("paid_at", "timestamp"),
        PushedColumn("amount", "int64", minimum=0),
    ),
    event_time="paid_at",
)
spend = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(function="count", over="unbounded", name="times"),
        Aggregation(column="amount", function="sum", over="unbounded", name="spent"),
    ),
    accuracy="exact",
)
newest = FeatureView(
    name="newest",
    entity="client",
    sql="SELECT client, paid_at AS event_time, created_time, amount AS last_amount FROM payments",
    features=(Feature(name="last_amount", dtype="int64"),),
    accuracy="exact",
)
scoring = FeatureService(name="scoring", features=("spend", "newest"))
notes = Source(
    name="notes",
    pushed=(PushedColumn("text", "string"), PushedColumn("at", "timestamp")),
    event_time="at",
)
"""
# Each push in a process of its own, which kills itself at the named place.
PUSH = """
import os, pathlib, signal, sys, time
from konveyer import FeatureStore
from konveyer.feature_store.etl.landing import Landing
from konveyer.feature_store.push import accept

def dies(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

def then_dies(function):
    def both(*arguments, **options):
        function(*arguments, **options)
        dies()
    return both

root, key, client, amount, place = sys.argv[1:]
match place:
    case "before the segment":
        accept.write_segment = dies
    case "before the commit":
        accept.write_segment = then_dies(accept.write_segment)
    case "before it is online":
        Landing.put = dies
    case "when one view has it":
        Landing.put = then_dies(Landing.put)
    case "before it is noted":
        accept.note_online = dies
    case "waits before it is online":
        put, go = Landing.put, pathlib.Path(root) / "go"

        def put_later(*arguments, **options):
            go.with_name("committed").touch()
            while not go.exists():
                time.sleep(0.01)
            put(*arguments, **options)

        Landing.put = put_later
with FeatureStore(root) as store:
    if place == "says when it begins":
        print("now", flush=True)
    row = {"client": int(client), "paid_at": "2026-01-31T12:00:00Z", "amount": int(amount)}
    print(store.push("payments", [row], key=key).number)
"""
PLACES = {
    "before the commit": 0,
    "when one view has it": 1,
    "before the segment": 0,
    "before it is online": 1,
    "before it is noted": 1,
}


@pytest.fixture(scope="module")
def new_bank(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("new") / "bank")
    shop.run("init", str(shop.root))
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    shop.run("apply")
    return shop


@pytest.fixture
def bank(new_bank: Shop, tmp_path: Path) -> Shop:
    return new_bank.copied_to(tmp_path / "bank")


def pushing(
    bank: Shop, key: str, client: int, amount: int, place: str = ""
) -> "subprocess.Popen[str]":
    arguments = [str(bank.root), key, str(client), str(amount), place]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KONVEYER_")}
    return subprocess.Popen(
        [sys.executable, "-c", PUSH, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def pushed(bank: Shop, key: str, client: int, amount: int) -> int:
    process = pushing(bank, key, client, amount)
    said, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return int(said)


def listed(bank: Shop) -> list[PushRow]:
    workspace = open_workspace(load_settings(bank.root))
    with workspace.catalog.reading() as session:
        found = list(session.scalars(select(PushRow).order_by(PushRow.number)))
    workspace.close()
    return found


def online(bank: Shop, *clients: int) -> list[Any]:
    with FeatureStore(bank.root) as store:
        found = store.online("scoring", [{"client": client} for client in clients])
    return [None if one is None else tuple(one.values()) for one in found]


def trained(bank: Shop, *clients: int) -> list[Any]:
    at = pa.array([from_us(now_us())] * len(clients), pa.timestamp("us", tz="UTC"))
    labels = pa.table({"client": pa.array(clients, pa.int64()), "label_timestamp": at})
    with FeatureStore(bank.root) as store:
        table = store.training_set("scoring", labels).table
    return [
        tuple(row.values()) for row in table.select(["times", "spent", "last_amount"]).to_pylist()
    ]


@pytest.mark.parametrize("place", quick_of(PLACES, 1))
def test_a_push_killed_anywhere_counts_once(bank: Shop, place: str) -> None:
    assert pushed(bank, "a", 1, 5) == 1
    process = pushing(bank, "b", 1, 7, place)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(listed(bank)) == 1 + PLACES[place]

    # Somebody else's push puts online what was left.
    number = pushed(bank, "c", 2, 1)
    assert number == 2 + PLACES[place]
    assert online(bank, 1) == [(2, 12, 7) if PLACES[place] else (1, 5, 5)]
    assert all(row.is_online for row in listed(bank))

    assert pushed(bank, "b", 1, 7) == pushed(bank, "b", 1, 7)
    assert online(bank, 1, 2) == [(2, 12, 7), (1, 1, 1)]
    bank.run("etl", "run")
    assert online(bank, 1, 2) == trained(bank, 1, 2) == [(2, 12, 7), (1, 1, 1)]


def test_etl_puts_online_what_a_killed_push_left(bank: Shop) -> None:
    process = pushing(bank, "a", 1, 7, "before it is online")
    process.communicate(timeout=60)
    assert online(bank, 1) == [None]
    bank.run("etl", "run")
    assert online(bank, 1) == trained(bank, 1) == [(1, 7, 7)]
    assert pushed(bank, "a", 1, 7) == 1
    assert online(bank, 1) == [(1, 7, 7)]


@pytest.mark.slow
def test_pushes_killed_at_any_moment_count_once(bank: Shop) -> None:
    """Each push is repeated with its key until a process says that it is done."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    whole_s = began_and_ended(bank, "warm", 0, 0, 60.0)
    assert whole_s is not None
    killed = began_and_ended(bank, "k0", 1, 1, 0.0) is None
    for number in range(6):
        for _ in range(2):
            if began_and_ended(bank, f"k{number}", 1, 2**number, chance.uniform(0, whole_s)):
                break
        else:
            pushed(bank, f"k{number}", 1, 2**number)
    assert online(bank, 1) == [(6, 63, 32)], f"seed {seed}"
    bank.run("etl", "run")
    assert online(bank, 1) == trained(bank, 1) == [(6, 63, 32)], f"seed {seed}"
    rows = [row for row in listed(bank) if row.number > 1]
    assert len(rows) == 6
    assert killed


def began_and_ended(bank: Shop, key: str, client: int, amount: int, after_s: float) -> float | None:
    """How long a push took; None when it was killed, `after_s` seconds after it began."""
    process = pushing(bank, key, client, amount, "says when it begins")
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    started = time.monotonic()
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    said, _error = process.communicate(timeout=60)
    return time.monotonic() - started if said else None


@pytest.mark.slow
def test_one_key_from_many_processes_counts_once(bank: Shop) -> None:
    processes = [pushing(bank, "same", 1, 5) for _ in range(4)]
    processes += [pushing(bank, f"other{n}", 1, 10) for n in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, said
    assert len({number for number, _ in said[:4]}) == 1
    assert len(listed(bank)) == 3
    assert online(bank, 1)[0][:2] == (3, 25)


def test_a_later_push_waits_until_the_one_before_is_online(bank: Shop) -> None:
    """Both happened at one moment: what arrived later must win online too."""
    with FeatureStore(bank.root) as store, ThreadPoolExecutor(1) as pool:
        store.push("payments", [row(2, 1)], key="warm")
        first = pushing(bank, "a", 1, 5, "waits before it is online")
        wait_for((bank.root / "committed").exists, first)
        second = pool.submit(store.push, "payments", [row(1, 7)], key="b")
        try:
            with pytest.raises(TimeoutError):
                second.result(timeout=3)
        finally:
            (bank.root / "go").touch()
        assert first.communicate(timeout=60)[0].strip() == "2"
        assert second.result(timeout=60).number == 3
    assert online(bank, 1) == [(2, 12, 7)]


@pytest.fixture
def api(bank: Shop) -> Iterator[httpx.Client]:
    """A client of a web process of the workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = saved_token(bank.root / "state", None)
    headers = {"Authorization": f"Bearer {token}"}
    with (
        (bank.root / "web.log").open("wb") as log,
        subprocess.Popen(
            bank.command("portal", "--port", str(port)), stdout=log, stderr=log
        ) as web,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client,
    ):
        try:
            wait_for(lambda: _answers(client), web)
            yield client
        finally:
            web.terminate()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").is_success
    except httpx.TransportError:
        return False


def sent(api: httpx.Client, key: str, *rows: dict[str, Any], **options: Any) -> httpx.Response:
    return api.post(
        "/api/sources/payments/rows", json=rows, headers={"Idempotency-Key": key}, **options
    )


def row(client: int, amount: int) -> dict[str, Any]:
    return {"client": client, "paid_at": "2026-01-31T12:00:00Z", "amount": amount}


@pytest.mark.slow
def test_pushes_while_etl_runs_are_never_lost_and_never_twice(
    bank: Shop, api: httpx.Client
) -> None:
    """Every push is sent twice, by many at a time, while runs of ETL take them up."""
    ended = threading.Event()

    def runs() -> int:
        count = 0
        while not ended.is_set():
            bank.run("etl", "run")
            count += 1
        return count

    with ThreadPoolExecutor(5) as pool:
        running = pool.submit(runs)
        keys = [number for number in range(60) for _ in range(2)]
        random.Random(0).shuffle(keys)
        answers = list(pool.map(lambda n: sent(api, f"k{n}", row(n % 3, n)), keys))
        ended.set()
        assert running.result() > 0
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["number"] for answer in answers}) == 60
    # All happened at one moment: the last that arrived is the newest.
    numbers = {answer.json()["number"]: n for n, answer in zip(keys, answers, strict=True)}
    newest = {numbers[number] % 3: numbers[number] for number in sorted(numbers)}
    expected = [(20, sum(range(client, 60, 3)), newest[client]) for client in range(3)]
    assert online(bank, 0, 1, 2) == expected
    bank.run("etl", "run")
    assert online(bank, 0, 1, 2) == trained(bank, 0, 1, 2) == expected


def test_the_api_takes_json_arrow_and_parquet(bank: Shop, api: httpx.Client) -> None:
    first = sent(api, "a", row(1, 5))
    assert first.json()["online"] == ["newest", "spend"]
    at = pa.array([0], pa.timestamp("us", tz="UTC"))
    table = pa.table({"client": [1], "paid_at": at, "amount": [6]})
    sink, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, file)
    for kind, content in (("arrow.stream", sink), ("parquet", file)):
        headers = {"Idempotency-Key": "b", "Content-Type": f"application/vnd.apache.{kind}"}
        body = content.getvalue().to_pybytes()
        answer = api.post("/api/sources/payments/rows", content=body, headers=headers)
        assert (answer.status_code, answer.json()["number"]) == (200, 2), answer.text
    assert online(bank, 1) == [(2, 11, 5)]


def test_the_api_refuses_texts_that_are_not_utf8(bank: Shop, api: httpx.Client) -> None:
    texts = pa.array([b"ok", b"\xff"])
    text = pa.Array.from_buffers(pa.string(), len(texts), texts.buffers())
    table = pa.table({"text": text, "at": pa.array([0, 0], pa.timestamp("us", tz="UTC"))})
    sink, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, file)
    for kind, content in (("arrow.stream", sink), ("parquet", file)):
        headers = {"Idempotency-Key": kind, "Content-Type": f"application/vnd.apache.{kind}"}
        body = content.getvalue().to_pybytes()
        answer = api.post("/api/sources/notes/rows", content=body, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (422, "pushed_rows_invalid"), answer.text
        assert "row 2, column 'text'" in error["message"]
    assert listed(bank) == []


def test_the_api_says_what_is_wrong(bank: Shop, api: httpx.Client) -> None:
    sent(api, "a", row(1, 5))
    wrong = {
        "idempotency_key_reused": (409, sent(api, "a", row(1, 6))),
        "pushed_rows_invalid": (422, sent(api, "b", row(1, -6))),
        "bad_idempotency_key": (400, sent(api, "", row(1, 6))),
        "push_too_large": (413, sent(api, "c")),
        "source_not_found": (
            404,
            api.post("/api/sources/x/rows", json=[], headers={"idempotency-key": "d"}),
        ),
        "body_unreadable": (
            400,
            api.post(
                "/api/sources/payments/rows", json={"client": 1}, headers={"idempotency-key": "e"}
            ),
        ),
        "token_unknown": (401, sent(api, "f", row(1, 6), auth=lambda r: _as(r, "kvy_x"))),
    }
    for code, (status, answer) in wrong.items():
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    headers = {"Idempotency-Key": "h", "Content-Type": "application/json"}
    nested = api.post("/api/sources/payments/rows", content=b"[" * 9_000, headers=headers)
    assert (nested.status_code, nested.json()["error"]["code"]) == (400, "body_unreadable")
    assert online(bank, 1) == [(1, 5, 5)]
    assert len(listed(bank)) == 1
    dry = sent(api, "g", row(1, 6), params={"dry_run": "true"})
    assert dry.json()["number"] == 0
    assert len(listed(bank)) == 1


def _as(request: httpx.Request, token: str) -> httpx.Request:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


@pytest.mark.slow
def test_the_command_pushes_files(bank: Shop) -> None:
    rows = [row(1, 5), row(2, 6)]
    (bank.root / "rows.json").write_text(json.dumps(rows))
    (bank.root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    push = ("features", "push", "payments")
    dry = bank.run(*push, "rows.json", "--key", "a", "--dry-run")
    assert (dry["done"], dry["push"]["number"], dry["push"]["rows"]) == (False, 0, 2)
    assert listed(bank) == []
    first = bank.run(*push, "rows.json", "--key", "a")["push"]
    assert bank.run(*push, "rows.jsonl", "--key", "a")["push"] == first
    assert (first["number"], first["rows"]) == (1, 2)
    assert online(bank, 1, 2) == [(1, 5, 5), (1, 6, 6)]
    (bank.root / "rows.json").write_text(json.dumps([row(1, -1)]))
    error = bank.error(*push, "rows.json", "--key", "b")
    assert error["code"] == "pushed_rows_invalid"
    assert "row 1, column 'amount'" in error["message"]
    (bank.root / "rows.csv").write_text("client\n1\n")
    assert bank.error(*push, "rows.csv", "--key", "b")["code"] == "file_unreadable"
    bank.run("people", "add", "till", "--role", "producer")
    bank.run("people", "token", "till", "--save")
    (bank.root / "rows.json").write_text(json.dumps([row(1, 1)]))
    assert bank.run(*push, "rows.json", "--key", "c", profile="till")["push"]["number"] == 2
    assert bank.error("etl", "run", profile="till")["code"] == "not_allowed"
