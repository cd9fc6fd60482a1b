"""A model with an on-demand feature, from its definition through every gate to a prediction."""

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from konveyer import FeatureStore
from konveyer.core.errors import KonveyerError
from tests.support import Shop, node, wait_for

DEFINITION = '''
"""What an offer is worth to a household."""

from konveyer import Feature, FeatureService, OnDemandView, RequestField


def worth(offer, spend_30d):
    return {"offer_share": offer / spend_30d}


offer_now = OnDemandView(
    name="offer_now",
    function=worth,
    request=(RequestField("offer", "float64"),),
    inputs=("basket_activity:spend_30d",),
    features=(Feature(name="offer_share", dtype="float64", description="Of a month's spend."),),
)
with_offer = FeatureService(name="with_offer", features=("basket_activity", "offer_now"))
'''


def test_it_goes_all_the_way(shop: Shop) -> None:
    (shop.root / "features/offer.py").write_text(DEFINITION)
    labels = pq.read_table(shop.root / "data/labels.parquet")
    offers = pa.array([None if n % 9 == 0 else float(n % 50) for n in range(len(labels))])
    pq.write_table(labels.append_column("offer", offers), shop.root / "data/labels.parquet")
    project = shop.root / "models/coupon_response/model.toml"
    text = project.read_text().replace('"coupon-response"', '"offers"')
    project.write_text(text.replace('service = "coupon_response"', 'service = "with_offer"'))

    shop.run("apply")
    shop.run("etl", "run", "basket_activity")
    built = ("--labels", "data/labels.parquet", "--label", "redeemed")
    shop.run("training-set", "build", "with_offer", *built, profile="ana")
    shop.run("train", "models/coupon_response", profile="ana")
    release = shop.run("submit", "models/coupon_response", profile="ana")
    assert release["state"] == "review", release
    release = shop.run("release", "approve", release["id"], profile="boris")
    assert release["state"] == "live", release
    stages = {stage["stage"]: stage for stage in release["stages"]}
    tried = {one["request"] for one in stages["functional"]["evidence"]["malformed_requests"]}
    assert {"no offer", "wrong offer"} <= tried

    caller = shop.caller()
    command = shop.command("serve", "prod", "--port", "0")
    with (
        node(command, shop.root, "prod") as (url, _),
        httpx.Client(base_url=url, headers=caller, timeout=10) as client,
    ):
        assert client.get("/offers/v1").json()["inputs"] == {
            "household_id": "int64",
            "offer": "float64",
        }
        body = {"household_id": 1, "offer": 12}
        answer = client.post("/offers/v1/predict", json=body, headers={"x-request-id": "mine"})
        assert answer.is_success, answer.text
        missing = client.post("/offers/v1/predict", json={"household_id": 1})
        assert missing.status_code == 422
        assert missing.json()["error"]["code"] == "missing_field"
        wait_for(lambda: shop.run("predictions", "prod", "--request", "mine"))
    (logged,) = shop.run("predictions", "prod", "--request", "mine")
    assert logged["request"] == {"offer": 12.0}
    assert logged["features"]["offer_share"] == 12 / logged["features"]["spend_30d"]

    with FeatureStore(shop.root) as store:
        (read,) = store.online("with_offer", [{"household_id": 1, "offer": 12.0}])
        assert read is not None
        assert read["offer_share"] == logged["features"]["offer_share"]
        (unasked,) = store.online("with_offer", [{"household_id": 1, "offer": None}])
        assert unasked is not None
        assert unasked["offer_share"] is None
        for key in ({"household_id": 1}, {"household_id": "1", "offer": 12.0}, {"offer": 1.0}):
            with pytest.raises(KonveyerError) as raised:
                store.online("with_offer", [key])
            assert raised.value.code == "bad_value"
