"""Requests to a production node over a real socket: the features are read online."""

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konveyer.core.clock import format_us
from konveyer.core.digest import digest_bytes
from konveyer.core.storage import FolderStorage
from konveyer.execution.serving.prediction_reader import read_predictions
from tests.support import Shop

PATH = "/coupon-response/v1/predict"


def test_a_key_alone_gives_a_prediction_that_the_log_explains(
    production: httpx.Client, released_shop: Shop
) -> None:
    answer = production.post(PATH, json={"household_id": 1}, headers={"x-request-id": "mine-1"})
    assert answer.status_code == 200
    body = answer.json()
    assert 0 < body["prediction"] < 1
    assert body["request_id"] == answer.headers["x-request-id"] == "mine-1"
    bundle = released_shop.root / "bundles" / body["bundle"].removeprefix("sha256:")
    assert digest_bytes((bundle / "manifest.json").read_bytes()) == body["bundle"]
    row = logged(released_shop.root, "mine-1")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    names = [feature["feature"] for feature in manifest["service"]["features"]]
    assert row["keys"] == [1]
    assert row["prediction"] == body["prediction"]
    assert row["bundle"] == body["bundle"]
    features = dict(zip(names, row["features"], strict=True))
    assert features["age"] == "65+"
    assert features["baskets_90d"] == baskets_of(released_shop.root, 1, days=90)


def test_the_command_names_the_features_that_an_answer_was_made_from(
    production: httpx.Client, released_shop: Shop
) -> None:
    production.post(PATH, json={"household_id": 1}, headers={"x-request-id": "mine-2"})
    row = logged(released_shop.root, "mine-2")
    (found,) = released_shop.run("predictions", "prod", "--request", "mine-2")
    assert found["keys"] == {"household_id": 1}
    assert found["features"]["baskets_7d"] == row["features"][0]
    assert sorted(map(str, found["features"].values())) == sorted(map(str, row["features"]))
    assert found["features"]["age"] == "65+"
    assert found["prediction"] == row["prediction"]
    assert len(released_shop.run("predictions", "prod", "--limit", "1")) == 1
    assert released_shop.run("predictions", "prod", "--request", "nobody") == []
    assert released_shop.error("predictions", "staging")["code"] == "environment_unknown"


def test_a_request_that_failed_is_logged_with_its_error(
    production: httpx.Client, released_shop: Shop
) -> None:
    production.post(PATH, content=b"{", headers={"x-request-id": "bad-json"})
    row = logged(released_shop.root, "bad-json")
    assert (row["status"], row["error"], row["keys"]) == (400, "invalid_json", None)
    two = {"rows": [{"household_id": 1}, {"household_id": 999999}]}
    production.post(PATH, json=two, headers={"x-request-id": "bad-key"})
    assert logged(released_shop.root, "bad-key")["features"] is None
    (second, first) = released_shop.run("predictions", "prod", "--request", "bad-key")
    assert [first["keys"], second["keys"]] == [{"household_id": 1}, {"household_id": 999999}]
    assert {(one["error"], one["prediction"]) for one in (first, second)} == {
        ("entity_not_found", None)
    }
    assert first["release"]
    assert first["side"] == "live"


def logged(root: Path, request_id: str) -> dict[str, Any]:
    import time

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        rows = list(
            read_predictions(FolderStorage(root / "state"), "prod", request_prefix=request_id)
        )
        if rows:
            return rows[0]
        time.sleep(0.05)
    raise AssertionError(request_id)


def baskets_of(root: Path, household: int, *, days: int) -> int:
    """Counted from the raw purchase lines, with nothing of Konveyer."""
    from datetime import datetime, timedelta

    end = datetime(2018, 1, 1)
    lines = pq.read_table(
        root / "data/transactions.parquet", filters=[("household_id", "=", household)]
    )
    baskets: dict[int, datetime] = {}
    for basket, at in zip(
        lines["basket_id"].to_pylist(), lines["transaction_timestamp"].to_pylist(), strict=True
    ):
        baskets[basket] = min(at, baskets.get(basket, at))
    return sum(end - timedelta(days=days) < at <= end for at in baskets.values())


def test_many_rows_are_answered_in_order(production: httpx.Client) -> None:
    single = [production.post(PATH, json={"household_id": n}).json()["prediction"] for n in (1, 2)]
    many = production.post(PATH, json={"rows": [{"household_id": n} for n in (2, 1, 2)]}).json()
    assert many["predictions"] == [single[1], single[0], single[1]]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"household_id": 1} {}', 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[]", 422, "wrong_type"),
        (b"1", 422, "wrong_type"),
        (b"{}", 422, "missing_key"),
        (b'{"household_id": null}', 422, "missing_key"),
        (b'{"household_id": "1"}', 422, "wrong_type"),
        (b'{"household_id": 1.5}', 422, "wrong_type"),
        (b'{"household_id": true}', 422, "wrong_type"),
        (b'{"household_id": 9223372036854775808}', 422, "wrong_type"),
        (b'{"household_id": 1, "age": "65+"}', 422, "value_not_allowed"),
        (b'{"household_id": 1, "aeg": "65+"}', 422, "extra_field"),
        (b'{"household_id": 999999}', 404, "entity_not_found"),
        (b'{"rows": []}', 422, "no_rows"),
        (b'{"rows": 1}', 422, "wrong_type"),
        (b'{"rows": [1]}', 422, "wrong_type"),
        (b'{"rows": [{"household_id": 1}, {}]}', 422, "missing_key"),
        (b'{"rows": [{"household_id": 1}], "x": 1}', 422, "extra_field"),
        (b'{"rows": [' + b",".join([b'{"household_id": 1}'] * 1001) + b"]}", 422, "too_many_rows"),
        (b" " * 10_000_000, 413, "body_too_large"),
    ],
)
def test_a_bad_request_gets_a_clear_4xx(
    production: httpx.Client, body: bytes, status: int, code: str
) -> None:
    answer = production.post(PATH, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/coupon-responce/v1/predict", 404, "application_not_found"),
        ("POST", "/coupon-response/v2/predict", 404, "version_not_found"),
        ("GET", "/coupon-response/v9", 404, "version_not_found"),
        ("GET", PATH, 405, "method_not_allowed"),
        ("DELETE", "/coupon-response/v1", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "route_not_found"),
        ("GET", "/v2-model/v1", 404, "application_not_found"),
        ("GET", "/../etc/passwd", 404, "route_not_found"),
    ],
)
def test_a_wrong_address_gets_a_clear_4xx(
    production: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = production.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("allow" in answer.headers) == (status == 405)


def test_a_near_miss_of_the_name_is_suggested(production: httpx.Client) -> None:
    error = production.post("/coupon-responce/v1/predict").json()["error"]
    assert error["hint"] == "did you mean 'coupon-response'?"


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_value_is_a_server_error(production: httpx.Client, value: Any) -> None:
    body = json.dumps({"household_id": value}).encode()
    assert production.post(PATH, content=body).status_code in (200, 400, 404, 422)
    assert production.post(PATH, content=json.dumps(value).encode()).status_code < 500


def test_a_body_that_is_larger_than_it_says_is_cut_off(production: httpx.Client) -> None:
    port = production.base_url.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(100):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b" 413 " in connection.recv(200)
    assert production.get("/health/live").is_success


def test_contract_health_and_metrics(production: httpx.Client, released_shop: Shop) -> None:
    contract = production.get("/coupon-response/v1").json()
    assert contract["inputs"] == {"household_id": "int64"}
    assert contract["outputs"] == {"prediction": "float64"}
    assert contract["owner"] == "marketing-science"
    *_, last = released_shop.run("release", "show", contract["release"])["stages"]
    assert last["started_us"] <= contract["live_since_us"] <= last["finished_us"]
    assert contract["live_since"] == format_us(contract["live_since_us"])
    answer = production.post(contract["example"]["url"], json=contract["example"]["request"])
    assert answer.is_success
    ready = production.get("/health/ready").json()
    assert [one["application"] for one in ready["versions"]] == ["coupon-response"]
    metrics = production.get("/metrics").text
    labels = 'api_version="1",application="coupon-response",side="live",status="200"'
    assert f"konveyer_requests_total{{{labels}}}" in metrics
