"""An online store on a network that is gone, frozen or slow."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from konveyer.bundle.manifest import Serving
from tests.faults.conftest import OPEN
from tests.redis_servers import RedisServer, redis_server
from tests.serving_nodes import Load, rows_logged, serving
from tests.serving_space import NAMES, ServingSpace, features_of, new_space
from tests.support import wait_for

PATH = "/scoring/v1/predict"
QUICK = Serving(deadline_ms=300)
FALLBACKS = {name: "Oslo" if name.endswith("city") else 0.0 for name in NAMES}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def space(redis: RedisServer, tmp_path: Path) -> ServingSpace:
    """Its features are in Redis."""
    space = new_space(tmp_path / "space", f'[online]\nurl = "{redis.url}"\n{OPEN}')
    space.publish(200)
    return space


def test_a_frozen_store_costs_a_deadline_and_no_more(
    space: ServingSpace, redis: RedisServer
) -> None:
    space.desire(space.pack(1, serving=QUICK))
    with serving(space, processes=1) as node, node.client() as client:
        assert client.post(PATH, json={"client_id": 1}).status_code == 200
        redis.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        answer = client.post(PATH, json={"client_id": 1})
        took_s = time.monotonic() - began
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "online_store_unavailable"
        assert 0.25 < took_s < 2.0

        with Load(node.url, connections=16) as load:
            alive_s = []
            for _ in range(10):
                began = time.monotonic()
                assert client.get("/health/live").is_success
                alive_s.append(time.monotonic() - began)
            assert sorted(alive_s)[5] < 0.25
            redis.process.send_signal(signal.SIGCONT)
            wait_for(lambda: 200 in load.statuses)
            load.more(300)
        assert load.statuses <= {200, 503}
        assert load.broken == []
        assert client.post(PATH, json={"client_id": 1}).status_code == 200


def test_models_that_wait_for_a_frozen_store_leave_room_for_others(
    space: ServingSpace, redis: RedisServer
) -> None:
    """Two of them: one alone does not need all of a process.

    All callers together are fewer than a process takes up at once, so that who is refused was so
    for those that wait.
    """
    with (space.root / "konveyer.toml").open("a") as settings:
        settings.write("most_under_way = 64\n")
    slow = Serving(deadline_ms=5_000)
    readers = [space.pack(1, application=name, serving=slow) for name in ("first", "second")]
    space.desire(*readers, space.pack(2, serving=Serving(given=tuple(NAMES))))
    given = [json.dumps(features_of(client)).encode() for client in range(10)]
    with serving(space, processes=1) as node:
        redis.process.send_signal(signal.SIGSTOP)
        with (
            Load(node.url, connections=40, path="/first/v1/predict") as first,
            Load(node.url, connections=20, path="/second/v1/predict") as second,
            Load(node.url, connections=2, bodies=given) as other,
        ):
            other.more(200)
            redis.process.send_signal(signal.SIGCONT)
            wait_for(lambda: 200 in first.statuses & second.statuses)
    assert other.statuses == {200}
    assert 429 in first.statuses & second.statuses


def test_declared_values_stand_in_for_a_store_that_is_gone(
    space: ServingSpace, redis: RedisServer
) -> None:
    serving_ = Serving(deadline_ms=300, fallbacks=FALLBACKS, given=(NAMES[0],))
    space.desire(space.pack(1, serving=serving_))
    with serving(space, processes=1) as node, node.client() as client:
        before = client.post(PATH, json={"client_id": 1}).json()
        assert "fallbacks" not in before
        with Load(node.url) as load:
            load.more(100)
            redis.stop()
            load.more(300)
        assert (load.statuses, load.broken) == ({200}, [])
        body = {"client_id": 1, NAMES[0]: 0.5}
        answer = client.post(PATH, json=body, headers={"x-request-id": "stand-in"})
        assert answer.status_code == 200
        assert answer.json()["fallbacks"] == NAMES[1:]
        redis.start()
        space.publish(200)
        wait_for(
            lambda: "fallbacks" not in client.post(PATH, json={"client_id": 1}).json(),
        )
    (row,) = [row for row in rows_logged(space.root) if row["request_id"] == "stand-in"]
    assert row["fallbacks"] == NAMES[1:]
    assert row["given"] == [NAMES[0]]
    assert row["features"] == [0.5, *[FALLBACKS[name] for name in NAMES[1:]]]


def test_without_them_a_store_that_is_gone_is_a_503(
    space: ServingSpace, redis: RedisServer
) -> None:
    space.desire(space.pack(1))
    with serving(space, processes=1) as node, node.client() as client:
        with Load(node.url) as load:
            load.more(100)
            redis.stop()
            wait_for(lambda: 503 in load.statuses)
            load.more(300)
        assert (load.statuses, load.broken) == ({200, 503}, [])
        assert load.codes == {"online_store_unavailable"}
        answer = client.post(PATH, json={"client_id": 1})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "online_store_unavailable"
        assert client.get("/health/ready").is_success
        redis.start()
        space.publish(200)
        wait_for(lambda: client.post(PATH, json={"client_id": 1}).is_success)
