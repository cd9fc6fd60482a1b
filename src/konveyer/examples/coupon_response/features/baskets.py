"""What a household buys: purchase lines grouped into baskets, then windows over baskets."""

from konveyer import Aggregation, FeatureView, Source

transactions = Source(
    name="transactions",
    path="data/transactions.parquet",
    event_time="transaction_timestamp",
    description="Purchase lines from the tills, one for each product in a basket.",
    owner="retail-data",
)

baskets = Source(
    name="baskets",
    sql="""
        SELECT household_id, basket_id,
               min(transaction_timestamp) AS paid_at,
               sum(sales_value) AS amount,
               sum(quantity) AS items,
               count(DISTINCT product_id) AS products,
               sum(retail_disc) AS discount,
               sum(coupon_disc) AS coupon_discount
        FROM transactions
        GROUP BY household_id, basket_id
    """,
    event_time="paid_at",
    description="One row for each basket: when it was paid, what it cost, what was saved.",
    owner="retail-data",
)


def _over(window: str) -> tuple[Aggregation, ...]:
    return (
        Aggregation(
            name=f"baskets_{window}",
            function="count",
            over=window,
            unit="baskets",
            description=f"Baskets paid in the last {window}.",
            minimum=0,
        ),
        Aggregation(
            name=f"spend_{window}",
            column="amount",
            function="sum",
            over=window,
            unit="USD",
            description=f"Money spent in the last {window}.",
            minimum=0,
        ),
        Aggregation(
            name=f"basket_mean_{window}",
            column="amount",
            function="mean",
            over=window,
            unit="USD",
            description=f"Average basket of the last {window}.",
            minimum=0,
        ),
        Aggregation(
            name=f"discount_{window}",
            column="discount",
            function="sum",
            over=window,
            unit="USD",
            description=f"Saved by the retailer's discounts in the last {window}.",
            minimum=0,
        ),
    )


basket_activity = FeatureView(
    name="basket_activity",
    entity="household",
    source="baskets",
    aggregations=(
        *_over("7d"),
        *_over("30d"),
        *_over("90d"),
        Aggregation(
            name="basket_max_90d",
            column="amount",
            function="max",
            over="90d",
            unit="USD",
            description="The largest basket of the last 90 days.",
            minimum=0,
        ),
        Aggregation(
            name="products_mean_90d",
            column="products",
            function="mean",
            over="90d",
            unit="products",
            description="Different products in an average basket of the last 90 days.",
            minimum=1,
        ),
        Aggregation(
            name="last_paid_90d",
            column="paid_at",
            function="max",
            over="90d",
            description="When the last basket was paid, at most 90 days ago.",
        ),
    ),
    description="How often and how much a household buys.",
    owner="retail-data",
    tags=("basket", "spend"),
)
