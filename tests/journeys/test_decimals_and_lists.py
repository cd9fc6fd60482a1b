"""A model that reads a decimal, and numbers made of a list, through every gate to a prediction."""

import httpx
import pytest

from tests.support import Shop, node, wait_for

DEFINITION = '''
"""The last basket of a household, to the cent."""

from konveyer import Aggregation, Feature, FeatureService, FeatureView, OnDemandView, Source


def of_last(last_counts, last_amount):
    import numpy as np

    counts = [np.nan if one is None else sum(one) for one in last_counts]
    return {"count_sum": np.array(counts, float), "dime": last_amount // 0.1}


bills = Source(
    name="bills",
    sql="SELECT household_id, paid_at, CAST(amount AS DECIMAL(12, 2)) AS amount FROM baskets",
    event_time="paid_at",
)
billed = FeatureView(
    name="billed",
    entity="household",
    source="bills",
    aggregations=(Aggregation(column="amount", function="sum", over="30d", name="billed_30d"),),
)
last_basket = FeatureView(
    name="last_basket",
    entity="household",
    sql="""
        SELECT household_id, paid_at AS event_time, CAST(amount AS DECIMAL(12, 2)) AS last_amount,
               [CAST(items AS BIGINT), CAST(products AS BIGINT)] AS last_counts
        FROM baskets
    """,
    features=(
        Feature(name="last_amount", dtype="decimal(12,2)", unit="USD", minimum=0),
        Feature(name="last_counts", dtype="list<int64>"),
    ),
)
made_of_last = OnDemandView(
    name="made_of_last",
    function=of_last,
    inputs=("last_basket:last_counts", "last_basket:last_amount"),
    features=(Feature(name="count_sum", dtype="float64"), Feature(name="dime", dtype="float64")),
)
with_list = FeatureService(name="with_list", features=("billed", "last_basket"))
exact = FeatureService(
    name="exact", features=("billed", "last_basket:last_amount", "made_of_last")
)
'''


@pytest.mark.slow
def test_it_goes_all_the_way(shop: Shop) -> None:
    (shop.root / "features/exact.py").write_text(DEFINITION)
    project = shop.root / "models/coupon_response/model.toml"
    text = project.read_text().replace('"coupon-response"', '"exact"')
    project.write_text(text.replace('service = "coupon_response"', 'service = "with_list"'))
    shop.run("apply")
    shop.run("etl", "run", "billed", "last_basket")
    shown = shop.run("features", "show", "last_basket")
    assert [one["dtype"] for one in shown["features"]] == ["decimal(12,2)", "list<int64>"]
    assert shown["profiles"]["last_counts"]["maximum"] == 2.0

    built = ("--labels", "data/labels.parquet", "--label", "redeemed")
    shop.run("training-set", "build", "with_list", *built, profile="ana")
    refused = shop.error("train", "models/coupon_response", profile="ana")
    assert refused["code"] == "feature_unreadable"
    assert "'last_counts' is list<int64>" in refused["message"]
    assert "last_basket:last_counts" in refused["hint"]

    project.write_text(text.replace('service = "coupon_response"', 'service = "exact"'))
    shop.run("training-set", "build", "exact", *built, profile="ana")
    shop.run("train", "models/coupon_response", profile="ana")
    release = shop.run("submit", "models/coupon_response", profile="ana")
    assert release["state"] == "review", release
    release = shop.run("release", "approve", release["id"], profile="boris")
    assert release["state"] == "live", release

    caller = shop.caller()
    command = shop.command("serve", "prod", "--port", "0")
    with (
        node(command, shop.root, "prod") as (url, _),
        httpx.Client(base_url=url, headers=caller, timeout=10) as client,
    ):
        features = client.get("/exact/v1").json()["features"]
        assert (features["billed_30d"], features["last_amount"]) == (
            "decimal(38,2)",
            "decimal(12,2)",
        )
        answer = client.post(
            "/exact/v1/predict", json={"household_id": 1}, headers={"x-request-id": "mine"}
        )
        assert answer.is_success, answer.text
        wait_for(lambda: shop.run("predictions", "prod", "--request", "mine"))
    (logged,) = shop.run("predictions", "prod", "--request", "mine")
    amount = logged["features"]["last_amount"]
    assert isinstance(amount, str)
    assert logged["features"]["dime"] == pytest.approx(float(amount) // 0.1)
