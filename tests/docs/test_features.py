"""docs/features.md is one project: its definitions are applied, and its examples run."""

import re
import shlex
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import deltalake
import psycopg
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from tests.support import Shop

TEXT = (Path(__file__).parents[2] / "docs/features.md").read_text()
DEFINITIONS = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("konveyer ")
]
SDK = [
    dedent(block)
    for block in re.findall(r"^((?:    .*\n|\n)+)", TEXT, re.MULTILINE)
    if "FeatureStore(" in block and "```" not in block
]
CLIENTS, DAYS = 10, 200


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Shop:
    """The project, applied and computed, as of 1 February 2026."""
    url = postgres_url.replace("+psycopg", "")
    shop = Shop(tmp_path_factory.mktemp("docs") / "shop")
    shop.run("init", str(shop.root))
    settings = shop.root / "konveyer.toml"
    fixed = '[workspace]\nfeature_time = "2026-02-01T00:00:00Z"'
    databases = (
        f'[databases.crm]\nurl = "{url}"\n[databases.branch]\nurl = "sqlite:///data/branch.db"'
    )
    settings.write_text(settings.read_text().replace("[workspace]", fixed, 1) + databases)
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    write_data(shop.root, url)
    shop.run("apply")
    shop.run("etl", "run")
    return shop


def write_data(root: Path, url: str) -> None:
    start = datetime(2017, 5, 1, tzinfo=UTC)
    pairs = [(c, start + timedelta(days=d, hours=c)) for c in range(CLIENTS) for d in range(DAYS)]
    clients = pa.array([client for client, _ in pairs])
    at = pa.array([moment for _, moment in pairs], pa.timestamp("us", "UTC"))
    many = len(pairs)
    amounts = pa.array([float(n % 90) for n in range(many)])
    cycled = [["web", "branch"], ["card", "cash"]]
    shops, kinds = (pa.array([two[n % 2] for n in range(many)]) for two in cycled)
    paid = {"client_id": clients, "paid_at": at, "loaded_at": at, "amount": amounts}
    pq.write_table(pa.table({**paid, "shop": shops, "kind": kinds}), root / "data/payments.parquet")
    redeemed = pa.array([n % 3 == 0 for n in range(many)])
    for name, moment in (("offers", "offered_at"), ("labels", "label_timestamp")):
        label = {"client_id": clients, moment: at, "amount": amounts, "redeemed": redeemed}
        pq.write_table(pa.table(label), root / f"data/{name}.parquet")
    pages = pa.array([["home", "card"][: n % 3] for n in range(many)], pa.list_(pa.string()))
    bills = pa.array([Decimal(n) for n in range(many)], pa.decimal128(12, 2))
    visits = pa.table({"client_id": clients, "left_at": at, "pages": pages, "bill": bills})
    pq.write_table(visits, root / "data/visits.parquet")
    csv.write_csv(
        pa.table({"client_id": clients, "sent_at": at.cast(pa.string()), "amount": bills}),
        root / "data/invoices.csv",
    )
    options = csv.WriteOptions(delimiter=";")
    with pa.CompressedOutputStream(str(root / "data/visits-1.csv.gz"), "gzip") as file:
        texts = {"at": at.cast(pa.string()), "page": shops, "seconds": amounts}
        csv.write_csv(pa.table({"client_id": clients, **texts}), file, options)
    deltalake.write_deltalake(
        str(root / "lake/orders"), pa.table({"client_id": clients, "ordered_at": at})
    )
    with sqlite3.connect(root / "data/branch.db") as branch:
        branch.execute("CREATE TABLE cards (client_id INTEGER, issued_at TEXT, is_gold INTEGER)")
        branch.execute("INSERT INTO cards VALUES (7, '2017-05-01 00:00:00', 1)")
    branch.close()
    with psycopg.connect(url, autocommit=True) as crm:
        crm.execute("DROP SCHEMA public CASCADE")
        crm.execute("CREATE SCHEMA public")
        crm.execute("CREATE TABLE clients (client_id bigint, changed_at timestamptz)")
        crm.execute("CREATE TABLE calls (client_id bigint, called_at timestamptz, length interval)")
    click = '{"client_id": 7, "clicked_at": "2026-01-10T12:00:00Z", "seconds": 4, "page": "card"}'
    (root / "clicks.jsonl").write_text(click + "\n")


def test_nothing_is_defined_twice() -> None:
    named = re.findall(
        r"(?:Source|FeatureView|OnDemandView|FeatureService)\(\s*name=\"(\w+)\"", TEXT
    )
    assert len(named) > 15
    assert len(set(named)) == len(named)


def test_every_view_is_computed(shop: Shop) -> None:
    runs = shop.run("etl", "runs")
    assert len({run["view"] for run in runs}) > 5
    assert {run["status"] for run in runs} == {"succeeded"}


def test_every_command_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)
    assert len(COMMANDS) > 8
    built = ""
    for command in COMMANDS:
        answer = shop.run(*(re.sub(r"^set-\w+$", built, word) for word in command))
        assert answer
        if command[:2] == ["training-set", "build"]:
            built = answer["id"]
            assert answer["rows"] > 0
    assert pq.read_table("offers-with-features.parquet").num_rows == CLIENTS * DAYS


def test_what_people_read_of_a_view_and_of_a_training_set(shop: Shop) -> None:
    def told(*arguments: str) -> str:
        command = [part for part in shop.command(*arguments) if part != "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    shown = told("features", "show", "sessions")
    assert "\ncode\n  def in_sessions(rows):\n      import polars as pl\n" in shown
    assert "\ncode\n" not in told("features", "show", "spend")
    labels = str(shop.root / "data/labels.parquet")
    costs = told("training-set", "explain", "scoring", "--labels", labels)
    assert "\nspend: client_id, event_time, created_time, of_amount, " in costs


def test_every_example_of_the_sdk_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root.parent)
    assert len(SDK) == 2
    names: dict[str, object] = {}
    for example in SDK:
        exec(compile(example, "docs/features.md", "exec"), names)
    assert getattr(names["frame"], "height", 0) == CLIENTS * DAYS
    assert Path("shop/scored.parquet").exists()
