"""An environment whose nodes read an online store of its own."""

import httpx

from tests.support import Shop, node, wait_for


def prediction(shop: Shop, environment: str) -> float | None:
    command = shop.command("serve", environment, "--port", "0")
    headers = shop.caller(environment)
    with (
        node(command, shop.root, environment) as (url, _),
        httpx.Client(base_url=url, headers=headers) as client,
    ):
        wait_for(lambda: client.get("/coupon-response/v1").is_success)
        answer = client.post("/coupon-response/v1/predict", json={"household_id": 1171})
        if answer.status_code == httpx.codes.NOT_FOUND:  # no entity is known there
            return None
        assert answer.is_success
        return float(answer.json()["prediction"])


def test_a_store_that_is_new_is_filled_by_publishing(shop_copy: Shop) -> None:
    wanted = prediction(shop_copy, "test")
    assert wanted is not None
    settings = shop_copy.root / "konveyer.toml"
    own = '[environments.test]\nonline = "lmdb:state/online-test"'
    settings.write_text(settings.read_text().replace("[environments.test]", own))
    assert prediction(shop_copy, "test") is None
    published = shop_copy.run("etl", "publish")["views"]
    assert {run["status"] for run in published} == {"succeeded"}
    assert prediction(shop_copy, "test") == wanted
    assert prediction(shop_copy, "prod") == wanted
