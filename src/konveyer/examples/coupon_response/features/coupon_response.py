"""What the coupon response model reads."""

from konveyer import FeatureService

coupon_response = FeatureService(
    name="coupon_response",
    features=(
        *(
            f"basket_activity:{name}_{window}"
            for window in ("7d", "30d", "90d")
            for name in ("baskets", "spend", "basket_mean", "discount")
        ),
        "basket_activity:basket_max_90d",
        "basket_activity:products_mean_90d",
        "coupon_behaviour:redemptions_30d",
        "coupon_behaviour:redemptions_90d",
        "coupon_behaviour:redemptions_365d",
        "coupon_savings",
        "campaign_exposure",
        "demographics",
    ),
    description="Will this household redeem a coupon of the campaign that starts now?",
    owner="marketing-science",
    tags=("coupon",),
)
