"""Which campaigns a household was sent."""

from konveyer import Aggregation, FeatureView, Source

campaigns = Source(
    name="campaigns",
    path="data/campaigns.parquet",
    description="Which household was sent which campaign.",
    owner="marketing-data",
)
campaign_descriptions = Source(
    name="campaign_descriptions",
    path="data/campaign_descriptions.parquet",
    description="Type, start and end of each campaign.",
    owner="marketing-data",
)
campaign_starts = Source(
    name="campaign_starts",
    sql="""
        SELECT household_id, campaign_id, campaign_type, start_date
        FROM campaigns JOIN campaign_descriptions USING (campaign_id)
    """,
    event_time="start_date",
    description="Campaigns sent to a household, at their start.",
    owner="marketing-data",
)


def _of_type(letter: str) -> Aggregation:
    return Aggregation(
        name=f"campaigns_{letter.lower()}_30d",
        function="count",
        over="30d",
        where=f"campaign_type = 'Type {letter}'",
        unit="campaigns",
        description=f"Campaigns of type {letter} that started in the last 30 days.",
        minimum=0,
    )


campaign_exposure = FeatureView(
    name="campaign_exposure",
    entity="household",
    source="campaign_starts",
    aggregations=(
        _of_type("A"),
        _of_type("B"),
        _of_type("C"),
        Aggregation(
            name="campaigns_365d",
            function="count",
            over="365d",
            unit="campaigns",
            description="Campaigns that started in the last year.",
            minimum=0,
        ),
    ),
    description="Which campaigns a household was sent, the one that starts now included.",
    owner="marketing-data",
    tags=("campaign",),
)
