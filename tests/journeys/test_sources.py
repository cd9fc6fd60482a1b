"""Sources through the public commands and the portal: what is shown, and what never is."""

from pathlib import Path

import httpx
import pytest

from tests.support import Shop, served

SECRET = "s3cr/t-Pa55word"
DEFINITIONS = """
from konveyer import Aggregation, Entity, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
types = {"client_id": "int64", "paid_at": "timestamp", "amount": "float64"}
clients = Source(name="clients", database="crm", table="public.clients")
web = Source(name="web", path="data/web-*.csv", columns=types, event_time="paid_at")
payments = Source(
    name="payments",
    sql="SELECT client_id, paid_at, amount FROM web JOIN clients USING (client_id)",
    event_time="paid_at",
)
spend = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(Aggregation(column="amount", function="sum", over="7d"),),
)
"""


@pytest.fixture
def bank(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A workspace over CSV and a PostgreSQL whose password stands in the environment."""
    import psycopg

    url = postgres_url.replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute("CREATE TABLE clients AS SELECT 1::bigint AS client_id, 'Oslo' AS city")
    monkeypatch.setenv("CRM_PASSWORD", SECRET)
    shop = Shop(tmp_path / "bank")
    shop.run("init", str(shop.root))
    (shop.root / "features/definitions.py").write_text(DEFINITIONS)
    (shop.root / "data/web-1.csv").write_text("client_id,paid_at,amount\n1,2026-01-01,2.5\n")
    set_url(shop, url.replace("postgres:@", "postgres:${CRM_PASSWORD}@"))
    return shop


def set_url(shop: Shop, url: str) -> None:
    settings = shop.root / "konveyer.toml"
    kept = settings.read_text().partition("[databases.crm]")[0]
    settings.write_text(f'{kept}[databases.crm]\nurl = "{url}"\n')


@pytest.mark.slow
def test_kinds_and_places_are_shown_and_secrets_are_not(bank: Shop) -> None:
    bank.run("apply")
    (run,) = bank.run("etl", "run")["views"]
    assert (run["status"], run["rows"]) == ("succeeded", 1)
    shown = {source["name"]: source for source in bank.run("features", "show", "spend")["sources"]}
    assert {name: source["kind"] for name, source in shown.items()} == {
        "clients": "database",
        "web": "csv",
        "payments": "sql",
    }
    assert shown["clients"]["reads"] == "crm: public.clients"
    assert shown["web"]["reads"] == "data/web-*.csv"
    assert shown["web"]["columns"]["paid_at"] == "timestamp"
    with served(bank.root) as url:
        page = httpx.get(f"{url}/features/spend").text
    for expected in ("database", "crm: public.clients", "data/web-*.csv", "amount float64"):
        assert expected in page

    set_url(bank, "postgresql://etl:${CRM_PASSWORD}@127.0.0.1:1/crm")
    error = bank.error("etl", "run")
    assert error["code"] == "etl_failed"
    assert "Feature view 'spend': Source 'clients', database 'crm'" in error["message"]
    assert bank.error("apply")["code"] == "database_unreadable"
    (failed, earlier) = bank.run("etl", "runs")
    assert (failed["status"], earlier["status"]) == ("failed", "succeeded")
    kept = [file for file in bank.root.rglob("*") if file.is_file()]
    assert len(kept) > 10
    holders = [file for file in kept if b"s3cr" in file.read_bytes()]
    assert holders == []


def test_a_variable_that_is_not_set_says_so(bank: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRM_PASSWORD")
    error = bank.error("apply")
    assert error["code"] == "variable_missing"
    assert "CRM_PASSWORD" in error["message"]
    assert "CRM_PASSWORD" in error["hint"]
