"""Twelve aggregates of one source: four functions over three windows. Exact, as every peer is."""

from konveyer import Aggregation, Entity, FeatureService, FeatureView, JoinKey, Source

client = Entity(name="client", join_keys=(JoinKey("client_id", "int64"),))
events = Source(name="events", path="data/events.parquet", event_time="event_time")
spend = FeatureView(
    name="spend",
    entity="client",
    source="events",
    aggregations=tuple(
        aggregation
        for over in ("7d", "30d", "90d")
        for aggregation in (
            Aggregation(column="amount", function="sum", over=over, name=f"sum_{over}"),
            Aggregation(function="count", over=over, name=f"count_{over}"),
            Aggregation(column="amount", function="max", over=over, name=f"max_{over}"),
            Aggregation(column="amount", function="mean", over=over, name=f"mean_{over}"),
        )
    ),
    accuracy="exact",
)
scoring = FeatureService(name="scoring", features=("spend",))
