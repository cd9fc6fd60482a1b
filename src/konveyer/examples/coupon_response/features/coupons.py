"""How a household uses coupons."""

from konveyer import Aggregation, FeatureView, Source

coupon_redemptions = Source(
    name="coupon_redemptions",
    path="data/coupon_redemptions.parquet",
    description="Coupons handed in, by day.",
    owner="marketing-data",
)

# The data knows the day of a redemption, not its time: it counts as known when the day is over.
redemptions = Source(
    name="redemptions",
    sql="""
        SELECT household_id, campaign_id, coupon_upc,
               redemption_date + INTERVAL 1 DAY AS known_at
        FROM coupon_redemptions
    """,
    event_time="known_at",
    description="Coupons handed in, at the end of their day.",
    owner="marketing-data",
)

coupon_behaviour = FeatureView(
    name="coupon_behaviour",
    entity="household",
    source="redemptions",
    aggregations=(
        *(
            Aggregation(
                name=f"redemptions_{window}",
                function="count",
                over=window,
                unit="coupons",
                description=f"Campaign coupons redeemed in the last {window}.",
                minimum=0,
            )
            for window in ("30d", "90d", "365d")
        ),
        Aggregation(
            name="last_redemption_365d",
            column="known_at",
            function="max",
            over="365d",
            description="The end of the day of the last redemption, at most a year ago.",
        ),
    ),
    description="How often a household redeems campaign coupons.",
    owner="marketing-data",
    tags=("coupon",),
)

coupon_savings = FeatureView(
    name="coupon_savings",
    entity="household",
    source="baskets",
    aggregations=tuple(
        aggregation
        for window in ("30d", "90d")
        for aggregation in (
            Aggregation(
                name=f"coupon_baskets_{window}",
                function="count",
                over=window,
                where="coupon_discount > 0",
                unit="baskets",
                description=f"Baskets of the last {window} with any manufacturer coupon in them.",
                minimum=0,
            ),
            Aggregation(
                name=f"coupon_saved_{window}",
                column="coupon_discount",
                function="sum",
                over=window,
                unit="USD",
                description=f"Saved by manufacturer coupons in the last {window}.",
                minimum=0,
            ),
        )
    ),
    description="What coupons save a household at the till.",
    owner="retail-data",
    tags=("basket", "coupon"),
)
