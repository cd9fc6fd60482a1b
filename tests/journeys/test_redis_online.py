"""Features that live in Redis: published by ETL, read by the lookup and by a node."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer.core.settings import load_settings
from konveyer.feature_store.datamart.lookup import OnlineLookup
from konveyer.feature_store.datamart.published import published_features
from konveyer.feature_store.definitions.resolved import ResolvedService
from konveyer.feature_store.online.codec import encode_key
from konveyer.feature_store.registry.lookup import active_state, resolve_service
from konveyer.wiring import Workspace, open_workspace
from tests.redis_servers import RedisServer, authority, in_front, redis_server
from tests.support import Shop, node, wait_for

PREDICT = "/coupon-response/v1/predict"
PASSWORD = "p@ss/w#rd"
CLIENTS = 300
DEFINITIONS = """
from konveyer import Aggregation, Entity, Feature, FeatureService, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("bank", "string"), JoinKey("id", "int64")))
payments = Source(name="payments", path="data/payments.parquet", event_time="paid_at")
spend = FeatureView(
    name="spend",
    entity="client",
    source="payments",
    aggregations=(
        Aggregation(function="count", over="3d", name="payments_3d"),
        Aggregation(column="cents", function="sum", over="3d"),
    ),
)
profile = FeatureView(
    name="profile",
    entity="client",
    sql="SELECT bank, id, paid_at AS event_time, city FROM payments",
    features=(Feature(name="city", dtype="string"),),
    ttl="5d",
)
scoring = FeatureService(name="scoring", features=("spend", "profile"))
"""


def write_payments(root: Path) -> None:
    """Each client pays its number in cents each noon from 1 to 10 January; every fifth twice."""
    rows = [
        (f"bank {n % 3}", n, f"2026-01-{day:02d}T12:00:00", n, "Århus" if n % 7 else None)
        for n in range(CLIENTS)
        for day in range(1, 3 if n % 5 == 0 else 11)
    ]
    banks, ids, times, cents, cities = zip(*rows, strict=True)
    columns = {
        "bank": pa.array(banks),
        "id": pa.array(ids, pa.int64()),
        "paid_at": pa.array(times).cast(pa.timestamp("us")),
        "cents": pa.array(cents, pa.int64()),
        "city": pa.array(cities),
    }
    (root / "data").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), root / "data/payments.parquet")


KEYS = [(f"bank {n % 3}", n) for n in range(CLIENTS)]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--requirepass", PASSWORD) as server:
        yield server


@pytest.fixture
def bank(redis: RedisServer, tmp_path: Path) -> Iterator[Shop]:
    """A small workspace whose features live in Redis, over TLS and behind a password."""
    shop = Shop(tmp_path / "bank")
    shop.run("init", str(shop.root))
    ca = authority(shop.root)
    with in_front([redis.port], ca.context) as (port,):
        password = quote(PASSWORD, safe="")
        shop.keep_online(f"rediss://:{password}@127.0.0.1:{port}/0?ssl_ca_certs={ca.file.name}")
        settings = shop.root / "konveyer.toml"
        moment = '[workspace]\nfeature_time = "2026-01-10T18:00:00Z"'
        settings.write_text(settings.read_text().replace("[workspace]", moment, 1))
        (shop.root / "features/bank.py").write_text(DEFINITIONS)
        write_payments(shop.root)
        yield shop


@contextmanager
def opened(shop: Shop) -> Iterator[Workspace]:
    workspace = open_workspace(load_settings(shop.root))
    yield workspace
    workspace.close()


def scoring(workspace: Workspace) -> ResolvedService:
    with workspace.catalog.reading() as session:
        return resolve_service(session, active_state(session), "scoring")


def online(
    workspace: Workspace, service: ResolvedService, keys: Sequence[tuple[str, int]] = KEYS
) -> list[tuple[object, ...] | None]:
    return list(OnlineLookup(service, workspace.online, workspace.settings.clock).rows(keys))


def offline(workspace: Workspace, service: ResolvedService) -> list[tuple[object, ...]]:
    requests = [()] * len(KEYS)
    return published_features(
        workspace.catalog, workspace.engine, workspace.offline, service, KEYS, requests
    )


def test_features_in_redis_from_their_publication_to_a_forgotten_client(bank: Shop) -> None:
    bank.run("apply")
    bank.run("etl", "run")
    with opened(bank) as workspace:
        old = scoring(workspace)
        before = online(workspace, old)
        assert before == offline(workspace, old)
        # Midnight of 10 January: the payments of 7, 8 and 9 January; every fifth has paid none.
        assert before[4] == (3, 12, "Århus")
        assert before[5] == (0, None, None)
        assert before[7] == (3, 21, None)
        assert online(workspace, old, [("bank 0", 1), ("nobody", 3)]) == [None, None]

    features = bank.root / "features/bank.py"
    features.write_text(features.read_text().replace('function="sum"', 'function="max"'))
    bank.run("apply")
    with opened(bank) as workspace:
        new = scoring(workspace)
        assert online(workspace, old) == before
    bank.run("etl", "run")  # replays the view that did not change
    with opened(bank) as workspace:
        assert online(workspace, old) == before
        after = online(workspace, new)
        assert after == offline(workspace, new)
        assert after[4] == (3, 4, "Århus")

        for view in new.views:
            workspace.online.delete(view.space, [encode_key(KEYS[4])])
        assert online(workspace, new) == [*after[:4], None, *after[5:]]


def test_a_node_reads_redis_and_answers_as_one_that_reads_lmdb(
    redis_shop: Shop, production: httpx.Client
) -> None:
    labels = pq.read_table(redis_shop.root / "data/labels.parquet")
    households = sorted(set(labels.column("household_id").to_pylist()))[:100]
    asked = {"rows": [{"household_id": household} for household in households]}
    command = redis_shop.command("serve", "prod", "--port", "0")
    with (
        node(command, redis_shop.root, "prod") as (url, _),
        httpx.Client(base_url=url, headers=redis_shop.caller(), timeout=10) as client,
    ):
        wait_for(lambda: client.get("/coupon-response/v1").is_success)
        for body in (asked, asked["rows"][0]):
            answers = [one.post(PREDICT, json=body) for one in (client, production)]
            assert [answer.status_code for answer in answers] == [200, 200]
            mine, wanted = (answer.json() for answer in answers)
            for told in (mine, wanted):
                del told["request_id"]
            assert mine == wanted


@pytest.mark.slow
def test_a_node_outlives_its_redis(released_shop: Shop, tmp_path: Path) -> None:
    shop = released_shop.copied_to(tmp_path / "shop")
    with redis_server(tmp_path / "redis", "--requirepass", PASSWORD) as server:
        shop.keep_online(server.url.replace("//", f"//:{quote(PASSWORD, safe='')}@"))
        server.stop()
        failed = shop.error("etl", "run")
        assert "cannot be written" in failed["message"]
        command = shop.command("serve", "prod", "--port", "0")
        with (
            node(command, shop.root, "prod") as (url, _),
            httpx.Client(base_url=url, headers=released_shop.caller(), timeout=20) as client,
        ):
            wait_for(lambda: client.get("/coupon-response/v1").is_success)
            answer = client.post(PREDICT, json={"household_id": 1})
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "online_store_unavailable"
            assert client.get("/health/live").is_success
            server.start()
            shop.run("etl", "run")
            again = client.post(PREDICT, json={"household_id": 1})
            assert again.status_code == 200
        shown = answer.text + str(failed) + (shop.root / "node.log").read_text()
        assert PASSWORD not in shown
        assert quote(PASSWORD, safe="") not in shown
