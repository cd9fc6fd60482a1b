"""API keys from the command that makes one to the node that lets it in."""

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.support import Shop, node, wait_for

PREDICT = ("POST", "/coupon-response/v1/predict", {"household_id": 1})
TENSOR = {"name": "household_id", "datatype": "INT64", "shape": [1], "data": [1]}
# The Open Inference Protocol is another way to the same application.
ASKED = (
    ("GET", "/v2/models/coupon-response", None),
    ("POST", "/v2/models/coupon-response/infer", {"inputs": [TENSOR]}),
    PREDICT,
)


def test_a_key_from_its_making_to_its_end(shop_copy: Shop) -> None:
    command = shop_copy.command("serve", "prod", "--port", "0", "--processes", "2")

    def ask(asked: tuple[str, str, Any], **headers: str) -> httpx.Response:
        method, path, body = asked
        return httpx.request(method, url + path, json=body, headers=headers, timeout=20)

    def status(key: str, asked: tuple[str, str, Any] = PREDICT) -> int:
        return ask(asked, Authorization=f"Bearer {key}").status_code

    with node(command, shop_copy.root, "prod") as (url, _):
        assert [ask(one).status_code for one in ASKED] == [401, 401, 401]
        made = shop_copy.run(
            *("key", "create", "till", "--application", "coupon-response", "--rate", "5"),
            profile="boris",
        )["key"]
        other = shop_copy.run("key", "create", "ledger", "--application", "scoring")["key"]
        typo = shop_copy.attempt("key", "create", "kiosk", "--application", "coupon-respons")
        assert "submitted for 'coupon-respons' yet: did you mean 'coupon-response'?" in typo.stderr
        for one in ASKED:
            wait_for(lambda: status(made, one) == 200)  # noqa: B023 - at once
            wait_for(lambda: status(other, one) == 403)  # noqa: B023 - at once
        contract = httpx.get(url + "/coupon-response/v1", headers={"X-API-Key": made})
        assert contract.json()["owner"] == "marketing-science"
        index = httpx.get(url + "/", headers={"X-API-Key": other}).json()
        assert index == {"applications": []}

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: status(made), range(120)))
        assert set(statuses) == {200, 429}
        for one in ASKED:
            answer = ask(one, **{"X-API-Key": made})
            while answer.status_code != 429:
                answer = ask(one, **{"X-API-Key": made})
            assert int(answer.headers["retry-after"]) >= 1
            assert "5 times a second" in answer.text
        assert answer.json()["error"]["code"] == "rate_exceeded"

        wait_for(lambda: shop_copy.run("predictions", "prod", "--limit", "1"))
        (row,) = shop_copy.run("predictions", "prod", "--limit", "1")
        assert row["caller"] == "till"

        listed = {one["name"]: one for one in shop_copy.run("key", "list")}
        assert listed["till"]["applications"] == ["coupon-response"]
        assert listed["till"]["rate_per_s"] == 5
        assert made not in str(listed)
        elsewhere = shop_copy.error("key", "revoke", "till", "--environment", "test")
        assert elsewhere["code"] == "api_key_not_found"
        shop_copy.run("key", "revoke", "till", "--environment", "prod")
        wait_for(lambda: status(made) == 401)
        assert shop_copy.error("key", "revoke", "till")["code"] == "api_key_not_found"

    entries = shop_copy.run("people", "audit")
    assert {("created", "till"), ("revoked", "till")} <= {
        (entry["action"], entry["subject"]) for entry in entries
    }
    catalog = (shop_copy.root / "state/catalog.db").read_bytes()
    assert made.encode() not in catalog


def test_who_may_make_keys_and_what_a_key_cannot_be(released_shop: Shop) -> None:
    for profile in ("ana", "eva"):
        error = released_shop.error("key", "create", "till", profile=profile)
        assert error["code"] == "not_allowed"
    for wrong in (["Till"], ["till", "--rate", "0"], ["till", "--days", "0"]):
        assert released_shop.error("key", "create", *wrong)["code"] == "bad_api_key"
    error = released_shop.error("key", "create", "till", "--environment", "staging")
    assert error["code"] == "environment_unknown"


def test_gates_call_with_a_key_of_their_own(released_shop: Shop) -> None:
    file = released_shop.root / "state/keys/gates-test"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    names = {(one["name"], one["environment"]) for one in released_shop.run("key", "list")}
    assert ("gates", "test") in names
